from __future__ import annotations

import copy

import pytest
import torch

from desmatch.recipe_training import AdversarialConfig
from desmatch.schema import Special
from desmatch.train.adversarial import (
    AWP,
    FGM,
    PGD,
    Attacked,
    build_attack,
    layer_matrices,
    put_back,
    token_rows,
)

KINDS = ("fgm", "pgd", "awp")


def loss_of(model, ids):
    return (
        model(ids, pair_cells=torch.arange(0, ids.numel(), ids.shape[1]))
        .pair_logits.square()
        .mean()
    )


@pytest.fixture
def ids():
    return torch.randint(7, 40, (3, 6), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def attacked_model(tiny_model, ids):
    """The model with the gradients of a batch, and what runs the batch again."""

    def backward():
        loss_of(tiny_model, ids).backward()

    backward()
    return tiny_model, backward


def gradients(model):
    return {name: each.grad.clone() for name, each in model.named_parameters()
            if each.grad is not None}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_come_back_bit_for_bit(kind, attacked_model):
    model, backward = attacked_model
    before = copy.deepcopy(model.state_dict())
    places = []

    def watched():
        places.append(copy.deepcopy(model.state_dict()))
        backward()

    build_attack(model, AdversarialConfig(kind=kind, num_steps=2))(watched)
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert len(places) == (2 if kind == "pgd" else 1)
    assert not all(torch.equal(each, before[name]) for name, each in places[-1].items())


def test_no_attack_is_none(tiny_model):
    assert build_attack(tiny_model, AdversarialConfig()) is None


def test_weights_come_back_after_an_error_too(attacked_model):
    model, _ = attacked_model
    before = copy.deepcopy(model.state_dict())

    def failing():
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        FGM(token_rows(model), epsilon=1.0)(failing)
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())


@pytest.mark.parametrize("kind", ["fgm", "pgd"])
def test_only_ordinary_tokens_of_the_embedding_move(kind, attacked_model):
    model, backward = attacked_model
    before = copy.deepcopy(model.state_dict())
    moved = {}

    def watched():
        moved.update(
            {name: (each - before[name]).abs() for name, each in model.state_dict().items()}
        )
        backward()

    build_attack(model, AdversarialConfig(kind=kind, epsilon=0.5))(watched)
    (name,) = [name for name, each in moved.items() if each.any()]
    assert name == "encoder.embeddings.word.weight"
    assert not moved[name][: len(Special)].any()


def test_fgm_adds_the_gradients_at_the_moved_embedding(attacked_model, ids):
    model, backward = attacked_model
    clean = gradients(model)
    moved = copy.deepcopy(model)
    moved.zero_grad()
    weight = moved.get_input_embeddings().weight
    direction = clean["encoder.embeddings.word.weight"].clone()
    direction[: len(Special)] = 0
    with torch.no_grad():
        weight += 0.5 * direction / direction.norm()
    loss_of(moved, ids).backward()
    FGM(token_rows(model), epsilon=0.5)(backward)
    for name, there in gradients(moved).items():
        torch.testing.assert_close(model.get_parameter(name).grad, clean[name] + there)


@pytest.mark.parametrize("kind", KINDS)
def test_an_attack_raises_the_loss(kind, attacked_model, ids):
    model, backward = attacked_model
    seen = []

    def watched():
        seen.append(loss_of(model, ids).item())
        backward()

    clean = loss_of(model, ids).item()
    build_attack(model, AdversarialConfig(kind=kind, epsilon=0.05))(watched)
    assert seen[-1] > clean


def test_pgd_of_one_step_within_its_ball_is_fgm(attacked_model):
    model, backward = attacked_model
    twin = copy.deepcopy(model)
    for each, original in zip(twin.parameters(), model.parameters(), strict=True):
        each.grad = None if original.grad is None else original.grad.clone()
    ids = torch.randint(7, 40, (3, 6), generator=torch.Generator().manual_seed(0))
    PGD(model, token_rows(model), epsilon=1.0, step_size=0.3, num_steps=1)(backward)
    FGM(token_rows(twin), epsilon=0.3)(lambda: loss_of(twin, ids).backward())
    for name, there in gradients(twin).items():
        torch.testing.assert_close(model.get_parameter(name).grad, there)


@pytest.mark.parametrize("epsilon", [0.05, 0.2])
def test_pgd_stays_in_its_ball(epsilon, attacked_model):
    model, backward = attacked_model
    rows = token_rows(model)
    start = rows.weight.clone()
    lengths = []

    def watched():
        lengths.append(float((rows.weight - start).norm()))
        backward()

    PGD(model, rows, epsilon=epsilon, step_size=0.1, num_steps=4)(watched)
    assert len(lengths) == 4
    assert max(lengths) <= epsilon * (1 + 1e-5)
    assert lengths[0] == pytest.approx(min(0.1, epsilon), rel=1e-4)


def test_awp_moves_each_matrix_by_a_share_of_its_length(attacked_model):
    model, backward = attacked_model
    matrices = layer_matrices(model)
    before = [each.weight.clone() for each in matrices]
    shares = []

    def watched():
        shares.extend(float((each.weight - start).norm() / start.norm())
                      for each, start in zip(matrices, before, strict=True))  # fmt: skip
        backward()

    AWP(matrices, epsilon=0.01)(watched)
    assert shares == pytest.approx([0.01] * len(matrices), rel=1e-3)


def test_nothing_moves_without_a_gradient():
    weight = torch.nn.Parameter(torch.ones(9, 2))
    seen = []
    FGM(Attacked(weight), epsilon=1.0)(lambda: seen.append(weight.detach().clone()))
    assert torch.equal(seen[0], torch.ones(9, 2))


def test_put_back_gives_copies():
    weight = torch.zeros(2)
    with put_back([weight]) as (kept,):
        weight += 1
        assert torch.equal(kept, torch.zeros(2))
    assert torch.equal(weight, torch.zeros(2))
