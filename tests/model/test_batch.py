from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from desmatch.data.batches import assemble
from desmatch.data.pack import pack
from desmatch.data.vocabulary import PairParts
from desmatch.model.batch import (
    UNLABELED,
    TrainingBatches,
    TrainingRows,
    Vocabularies,
    lay_out,
)
from desmatch.model.heads import model_inputs
from desmatch.recipe_training import TrainingConfig
from desmatch.schema import Special
from desmatch.train.finetune import label_objective
from desmatch.train.pretrain import joint_objective
from tests.conftest import encode_lists

PAIRS = [([7, 8, 9], [10]), ([11], [12, 13]), ([14, 15], [16, 17, 18]), ([19], [20])]
LABELS = np.array([1, UNLABELED, 0, UNLABELED], np.int8)


def batches(**changes):
    config = TrainingConfig(
        **{"num_train_epochs": 3, "batch_size": 2, "num_evaluations": 1, **changes}
    )
    rows = TrainingRows(encode_lists(PAIRS), LABELS)
    return TrainingBatches(rows, config, Vocabularies(7, 40), seed=5, stage="pretrained")


def in_shares(num_shares, **changes):
    """The first batch of four pairs, and its shares."""
    settings = {"batch_size": 4, "mlm_probability": 0.4, "label_weight": 3.0, **changes}
    whole, parts = batches(**settings), batches(**settings)
    parts.num_shares = num_shares
    assert len(parts) == num_shares * len(whole)
    return whole[1], [parts[num_shares + number] for number in range(num_shares)]


@pytest.mark.parametrize("num_shares", [1, 2, 3, 6])
@pytest.mark.parametrize("objective", [joint_objective, lambda model, _: label_objective(model)])
def test_the_mean_of_the_shares_losses_is_the_loss_of_the_batch(tiny_model, num_shares, objective):
    whole, shares = in_shares(num_shares)
    losses = objective(tiny_model, 3.0)

    def gradients(batch):
        tiny_model.zero_grad()
        loss = losses(tiny_model(**model_inputs(batch)), batch)
        loss.backward()
        return loss.detach(), tiny_model.get_input_embeddings().weight.grad.clone()

    expected = gradients(whole)
    found = [torch.stack(each).mean(0) for each in zip(*map(gradients, shares), strict=True)]
    assert expected[0] > 0
    torch.testing.assert_close(tuple(found), expected)


@pytest.mark.parametrize("num_shares", [1, 2, 3, 6])
@pytest.mark.parametrize("objective", ["mlm", "heat"])
def test_shares_have_every_target_of_a_batch_once(objective, num_shares):
    whole, shares = in_shares(num_shares, objective=objective)
    for name in ("masked_labels", "pair_labels"):
        torch.testing.assert_close(torch.cat([each[name] for each in shares]), whole[name])
    assert [sum(each[f"{kind}_weight"] for each in shares) for kind in ("joint", "pair")] == [
        pytest.approx(num_shares)
    ] * 2
    assert all(len(each["input_ids"]) for each in shares)


def tokens_of(row):
    """A pair of the toy rows as its tokens, unswapped."""
    a, b = PAIRS[row]
    return (int(Special.CLS), *a, int(Special.SEP), *b, int(Special.SEP))


@pytest.mark.parametrize("row_length", [1, 8, 14, 64])
def test_cells_find_every_token_and_the_rest_is_padding(row_length):
    flat = assemble(encode_lists(PAIRS), np.arange(4), np.zeros(4, bool))
    packed = lay_out(flat, packing=partial(pack, row_length=row_length))
    place = pack(flat.lengths, row_length=row_length)
    for rows in packed.inputs.values():
        assert rows.shape == (place.num_rows, place.row_length)
        assert rows.dtype == torch.int64
    assert packed.input_ids.flatten()[packed.cells].tolist() == flat.ids.tolist()
    is_padding = torch.ones(packed.input_ids.numel(), dtype=torch.bool)
    is_padding[packed.cells] = False
    assert (packed.input_ids.flatten()[is_padding] == Special.PAD).all()
    assert (packed.attention_mask.flatten()[is_padding] == 0).all()
    assert (packed.attention_mask.flatten()[packed.cells] > 0).all()


def test_cells_of_a_pair_carry_its_number_and_their_places_in_it():
    flat = assemble(encode_lists(PAIRS), np.arange(4), np.zeros(4, bool))
    packed = lay_out(flat, packing=partial(pack, row_length=14))
    assert len(packed.input_ids) == 2  # 7, 6, 8 and 5 tokens
    for number, length in enumerate(flat.lengths.tolist(), start=1):
        found = packed.attention_mask == number
        assert packed.position_ids[found].tolist() == list(range(length))
        assert found.any(dim=1).sum() == 1  # row
    assert packed.attention_mask.max() == len(PAIRS)


def test_the_model_takes_all_of_a_batch_but_the_labels():
    batch = batches()[0]
    assert batch.keys() - model_inputs(batch).keys() == {
        "masked_labels",
        "pair_labels",
        "joint_weight",
        "pair_weight",
    }


def test_an_epoch_predicts_the_label_of_every_labelled_row_once():
    items = batches(mlm_probability=0.0)
    found = [label for step in range(2) for label in items[step]["pair_labels"].tolist()]
    assert sorted(found) == [0, 1]
    assert all(len(items[step]["masked_labels"]) == 0 for step in range(2))


def test_cells_point_at_masked_tokens_and_at_cls_of_labelled_rows():
    items = batches(mlm_probability=0.5)
    for step in range(len(items)):
        batch = items[step]
        tokens = batch["input_ids"].flatten()
        assert (tokens[batch["pair_cells"]] == Special.CLS).all()
        assert len(batch["pair_cells"]) == len(batch["pair_labels"])
        assert len(batch["masked_cells"]) == len(batch["masked_labels"])
        assert (batch["masked_labels"] > Special.YES).all()


def test_without_noise_every_text_is_where_its_label_points():
    batch = batches(mlm_probability=0.0, swap_probability=0.0, batch_size=4)[0]
    found = {}
    for cell, label in zip(batch["pair_cells"], batch["pair_labels"], strict=True):
        is_pair = batch["attention_mask"] == batch["attention_mask"].flatten()[cell]
        found[tuple(batch["input_ids"][is_pair].tolist())] = label.item()
    assert found == {tokens_of(0): 1, tokens_of(2): 0}


def test_masked_labels_are_the_tokens_that_were_there():
    noisy = batches(mlm_probability=0.6, swap_probability=0.0, batch_size=4)[0]
    plain = batches(mlm_probability=0.0, swap_probability=0.0, batch_size=4)[0]
    tokens = plain["input_ids"].flatten()[noisy["masked_cells"]]
    assert len(tokens) > 3
    assert noisy["masked_labels"].tolist() == tokens.tolist()


@pytest.mark.parametrize("unit", ["token", "ngram", "word"])
def test_every_unit_of_masking_hides_about_its_share(unit):
    rng = np.random.default_rng(0)
    texts = rng.integers(7, 38, (400, 2, 12))
    texts[::4, :, 4:6] = (38, 39)  # the one word there is
    rows = TrainingRows(
        encode_lists([(a.tolist(), b.tolist()) for a, b in texts]), np.zeros(400, np.int8)
    )
    config = TrainingConfig(batch_size=400, num_evaluations=1, mask_unit=unit, mlm_probability=0.2)
    batch = TrainingBatches(rows, config, Vocabularies(7, 40), seed=5, stage="pretrained")[0]
    labels = batch["masked_labels"]
    assert len(labels) == pytest.approx(0.2 * texts.size, rel=0.1)
    first = torch.nonzero(labels == 38).flatten()
    is_whole = labels[(first + 1).clamp_max(len(labels) - 1)] == 39
    assert is_whole.all() == (unit == "word")


def test_a_batch_is_a_function_of_seed_stage_and_step():
    first, second = batches(), batches()
    for step in range(6):
        _ = first[step]
    for name, tensor in second[4].items():
        torch.testing.assert_close(first[4][name], tensor)


def test_noise_and_order_are_drawn_anew_in_every_epoch():
    items = batches(mlm_probability=0.5, batch_size=4, num_train_epochs=20)
    seen = {tuple(items[step]["input_ids"].flatten().tolist()) for step in range(20)}
    assert len(seen) == 20


def test_swap_probability_zero_never_swaps():
    batch = batches(mlm_probability=0.0, swap_probability=0.0, batch_size=4)[0]
    texts = [batch["input_ids"][batch["attention_mask"] == pair] for pair in range(1, 5)]
    assert {tuple(text.tolist()) for text in texts} == {tokens_of(row) for row in range(4)}


def test_the_number_of_steps_is_a_multiple_of_the_evaluations():
    items = batches(num_train_epochs=50, num_evaluations=3)
    assert len(items) == 3 * items.steps_per_evaluation
    assert items.steps_per_evaluation % 10 == 0
    assert abs(len(items) - 100) <= 15


def test_rows_in_parts_give_the_batches_of_one_array():
    parts = PairParts(tuple(encode_lists(pairs) for pairs in (PAIRS[:1], [], PAIRS[1:])))
    whole = batches()
    in_parts = TrainingBatches(
        TrainingRows(parts, LABELS), whole.config, whole.vocabulary, seed=5, stage="pretrained"
    )
    assert len(whole) == len(in_parts) == 6
    for step in range(6):
        for name, expected in whole[step].items():
            torch.testing.assert_close(in_parts[step][name], expected, rtol=0, atol=0)


@pytest.mark.parametrize("batch_size", [1, 3, 5, 8])
def test_an_epoch_has_every_row_once_in_an_order_of_its_own(batch_size):
    pairs = encode_lists([([7 + row], [30]) for row in range(8)])
    config = TrainingConfig(num_train_epochs=2, batch_size=batch_size, mlm_probability=0.01)
    rows = TrainingRows(pairs, np.arange(8).astype(np.float32))
    drawn = TrainingBatches(rows, config, Vocabularies(7, 40), seed=5, stage="pretrained")
    steps = -(-8 // batch_size)
    epochs = [
        [
            row
            for step in range(steps)
            for row in drawn[epoch * steps + step]["pair_labels"].tolist()
        ]
        for epoch in (0, 1)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == [*range(8)]
    assert epochs[0] != epochs[1]
