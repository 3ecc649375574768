from __future__ import annotations

import copy
import math
import re
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from typing import get_args, get_type_hints

import pytest
import pytorch_optimizer
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainingArguments, get_scheduler

from desmatch.model.configuration import MatchConfig
from desmatch.model.heads import MatchForPairs
from desmatch.recipe_training import AmosConfig, Schedule, TrainingConfig
from desmatch.train.amos import SLOT_SHAPES, Amos, Slots, amos_groups
from desmatch.train.optimizers import (
    Scale,
    adamw_groups,
    build_optimizer,
    build_scheduler,
    inverse_square,
    inverse_time,
    state_elements,
)

SCHEDULES = [inverse_time, inverse_square]
WIDTH, INNER = 16, 64
KINDS = [
    {},
    {"position": "relative", "norm": "pre"},
    {"position": "rotary", "norm": "deepnorm", "mlm_head_dense": False},
    {"head": "classifier", "pooling": "cls"},
    {"head": "naive-bayes"},
    {"heat_fill": "mask"},
    {"heat_fill": "linear", "norm": "pre", "position": "rotary"},
    {"head": "classifier", "pooling": "cls-mean", "initialization": "deepnorm"},
]
"""Settings that together have every parameter a model can have."""


def match_model(**settings):
    """A small `MatchForPairs` without dropout, its matrices drawn from a generator."""
    config = MatchConfig(
        **{
            "vocab_size": 40,
            "hidden_size": WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": INNER,
            "max_position_embeddings": 32,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            **settings,
        }
    )
    return filled(MatchForPairs(config))


def filled(model, seed=0):
    """`model` with every parameter drawn anew from a generator."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in model.parameters():
            each.normal_(std=0.1, generator=generator)
    return model


def regression(seed=0, num_rows=64, dtype=torch.float32):
    """A small network and a function to its loss on a batch of a toy problem."""
    layers = nn.Linear(6, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3)
    model = filled(nn.Sequential(*layers)).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_rows, 6, generator=generator).to(dtype)
    y = torch.randn(num_rows, 3, generator=generator).to(dtype)

    def loss(model, step):
        rows = torch.arange(step * 8, step * 8 + 8) % num_rows
        return (model(x[rows]) - y[rows]).square().mean()

    return model, loss


def train(model, loss, optimizer, steps, scheduler=None):
    for step in steps:
        optimizer.zero_grad()
        loss(model, step).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def single(parameter, slots="scalar", scale=1.0):
    return [{"params": [parameter], "scale": scale, "slots": slots}]


def step_with(optimizer, parameter, gradient):
    parameter.grad = gradient.clone()
    optimizer.step()


def descend(loss, start, num_steps, **options):
    theta = nn.Parameter(torch.tensor(start))
    optimizer = Amos(single(theta), **options)
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss(theta).backward()
        optimizer.step()
    return theta.detach()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(
    ("lr", "dtype"),
    [(0.05, torch.float32), (0.3, torch.float64)],  # so large a rate makes rounding grow
)
def test_amos_agrees_with_another_implementation(lr, dtype, momentum):
    model, loss = regression(dtype=dtype)
    twin = copy.deepcopy(model)
    options = {"lr": lr, "beta": 0.98, "momentum": momentum}
    theirs = pytorch_optimizer.Amos(twin.parameters(), **options)
    scale = pytorch_optimizer.Amos.get_scale  # it knows no other
    groups = [single(each, scale=scale(each))[0] for each in model.parameters()]
    ours = Amos(groups, **options)
    warm_up = partial(inverse_time, half_life=20, warmup_steps=5)
    train(model, loss, ours, range(60), LambdaLR(ours, warm_up))
    train(twin, loss, theirs, range(60), LambdaLR(theirs, warm_up))
    close = partial(torch.testing.assert_close, atol=1e-5, rtol=0)
    for mine, other in zip(model.parameters(), twin.parameters(), strict=True):
        close(mine, other)
        close(ours.state[mine]["v"], theirs.state[other]["exp_avg_sq"])
        close(ours.state[mine]["b"], theirs.state[other]["decay"])


def test_slots_of_rows_are_the_scalar_slots_of_the_rows_alone():
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(5, 4, generator=generator)
    matrix = nn.Parameter(start.clone())
    rows = [nn.Parameter(row.clone()) for row in start]
    whole = Amos(single(matrix, "rows", 0.3), lr=0.1, beta=0.9)
    alone = Amos([{"params": rows, "scale": 0.3, "slots": "scalar"}], lr=0.1, beta=0.9)
    for _ in range(10):
        matrix.grad = torch.randn(5, 4, generator=generator)
        for row, gradient in zip(rows, matrix.grad, strict=True):
            row.grad = gradient.clone()
        whole.step()
        alone.step()
    assert whole.state[matrix]["v"].shape == (5, 1)
    torch.testing.assert_close(matrix.detach(), torch.stack([row.detach() for row in rows]))


@given(
    exponent=st.integers(-20, 20), slots=st.sampled_from(get_args(Slots)), seed=st.integers(0, 9)
)
def test_the_unit_of_the_loss_does_not_matter(exponent, slots, seed):
    generator = torch.Generator().manual_seed(seed)
    first = nn.Parameter(torch.randn(3, 4, generator=generator))
    second = nn.Parameter(first.detach().clone())
    optimizers = [Amos(single(each, slots), lr=0.1, beta=0.9) for each in (first, second)]
    for _ in range(3):
        gradient = torch.randn(3, 4, generator=generator)
        step_with(optimizers[0], first, gradient)
        step_with(optimizers[1], second, gradient * 2.0**exponent)
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)


def test_the_first_step_by_hand():
    theta = nn.Parameter(torch.tensor([3.0, -1.0]))
    optimizer = Amos(single(theta, scale=0.5), lr=0.1, initial_b=2.0)
    step_with(optimizer, theta, torch.tensor([1.0, 7.0]))  # mean square 25, v_hat the same
    c = (1 + 0.25 * math.sqrt(0.1) * 2) ** -0.5
    d = 1 / (1 + 0.25 * math.sqrt(0.05) * 2)
    gamma = c * 0.01
    expected = [3 - d * (0.05 / 5 + gamma * 1.5), -1 - d * (0.05 * 7 / 5 - gamma * 0.5)]
    assert theta.tolist() == pytest.approx(expected)
    assert float(optimizer.state[theta]["b"]) == pytest.approx(2 + gamma * 3)


def test_amos_finds_the_bottom_of_a_parabola():
    bottom = torch.tensor([1.0, -1.0, 1.0])
    found = descend(lambda x: (x - bottom).square().sum(), [-1.0, 10.0, 1.0], 500, lr=1.0)
    torch.testing.assert_close(found, bottom)


def test_amos_finds_the_bottom_of_rosenbrocks_valley():
    found = descend(
        lambda x: (1 - x[0]).square() + 100 * (x[1] - x[0].square()).square(),
        [0.0, 0.0],
        3000,
        lr=0.5,
        beta=0.5,
        clip=1.0,
        momentum=0.9,
    )
    torch.testing.assert_close(found, torch.ones(2), atol=1e-4, rtol=0)


def test_clipping_is_by_element():
    generator = torch.Generator().manual_seed(4)
    clipped, fed = (nn.Parameter(torch.ones(6)) for _ in range(2))
    optimizers = Amos(single(clipped), lr=0.1, clip=0.5), Amos(single(fed), lr=0.1)
    for _ in range(5):
        gradient = torch.randn(6, generator=generator)
        step_with(optimizers[0], clipped, gradient)
        assert torch.equal(clipped.grad, gradient)
        step_with(optimizers[1], fed, gradient.clamp(-0.5, 0.5))
    assert torch.equal(clipped, fed)


def test_a_large_initial_b_keeps_weights_near_their_start():
    model, loss = regression()
    distances = []
    for initial_b in (0.0, 10.0, 1000.0):
        trained = copy.deepcopy(model)
        optimizer = Amos(amos_groups(trained), lr=0.1, initial_b=initial_b)
        train(trained, loss, optimizer, range(20))
        vectors = (nn.utils.parameters_to_vector(each.parameters()) for each in (trained, model))
        distances.append(torch.dist(*vectors).item())
    assert distances == sorted(distances, reverse=True)
    assert distances[2] < 0.1 * distances[0]


def test_rows_without_a_gradient_stay_where_they_are():
    table = filled(nn.Embedding(6, 4))
    start = table.weight.detach().clone()
    optimizer = Amos(single(table.weight, "rows"), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        table(torch.tensor([0, 2])).square().sum().backward()
        optimizer.step()
    moved = (table.weight != start).any(dim=1)
    assert moved.tolist() == [True, False, True, False, False, False]
    assert table.weight.isfinite().all()


def test_a_parameter_that_gets_its_first_gradient_late_steps_like_a_new_one():
    early, late, new = (nn.Parameter(torch.ones(3)) for _ in range(3))
    gradient = torch.tensor([1.0, 2.0, 3.0])
    optimizer = Amos([{"params": [early, late], "scale": 1.0, "slots": "scalar"}], lr=0.1)
    for _ in range(5):
        step_with(optimizer, early, gradient)
    assert torch.equal(late, torch.ones(3))
    early.grad = None
    step_with(optimizer, late, gradient)
    step_with(Amos(single(new), lr=0.1), new, gradient)
    assert torch.equal(late, new)


def test_a_closure_gives_the_loss():
    theta = nn.Parameter(torch.ones(2))
    optimizer = Amos(single(theta), lr=0.1)

    def closure():
        loss = theta.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 2
    assert (theta < 1).all()


@pytest.mark.parametrize(
    "wrong", [{"lr": -1.0}, {"beta": 1.0}, {"momentum": -0.1}, {"clip": 0.0}, {"initial_b": -1.0}]
)
def test_amos_refuses_values_without_a_meaning(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"expected .* got .*\b{name}={value}"):
        Amos(single(nn.Parameter(torch.ones(2))), **{"lr": 0.1, **wrong})


def test_amos_refuses_parameters_without_a_scale():
    with pytest.raises(ValueError, match="scale"):
        Amos([{"params": [nn.Parameter(torch.ones(2))]}], lr=0.1)


PER_INPUT = math.sqrt(1 / WIDTH)
ETAS = {
    "encoder.embeddings.word.weight": math.sqrt(2 / WIDTH),
    "encoder.embeddings.position.weight": math.sqrt(2 / WIDTH),
    "encoder.embeddings.token_type.weight": math.sqrt(2 / WIDTH),
    "encoder.embeddings.norm.weight": 1.0,
    "encoder.layers.N.attention.qkv.weight": PER_INPUT,
    "encoder.layers.N.attention.output.weight": PER_INPUT,
    "encoder.layers.N.attention_norm.weight": 1.0,
    "encoder.layers.N.feed_forward.expand.weight": PER_INPUT,
    "encoder.layers.N.feed_forward.contract.weight": math.sqrt(2 / INNER),
    "encoder.layers.N.feed_forward_norm.weight": 1.0,
    "encoder.final_norm.weight": 1.0,
    "mlm_head.dense.weight": PER_INPUT,
    "mlm_head.norm.weight": 1.0,
    "pair_head.dense.weight": PER_INPUT,
    "pair_head.output.weight": PER_INPUT,
    "pair_head.query.weight": PER_INPUT,
    "pair_head.vote.weight": PER_INPUT,
    "pair_head.cls.weight": PER_INPUT,
    "pair_head.beta": 0.5,
    "heat.fill.vector.weight": math.sqrt(2 / WIDTH),
    "heat.fill.slope": PER_INPUT,
    "heat.place.0.weight": math.sqrt(2 / WIDTH),
    "heat.place.1.weight": 1.0,
    "heat.final_norm.weight": 1.0,
}
"""Every weight of a model, its layer aside; each of these names has a bias or none."""


def of_any_layer(name):
    """The name without the number of its layer; a decoder's layers are like an encoder's."""
    return re.sub(r"(encoder|heat)\.layers\.\d+", "encoder.layers.N", name)


def eta_of(name, parameter):
    """The scale that the article's table gives a parameter of our model."""
    if name.endswith(".bias"):
        return 0.5
    if name == "pair_head.dense.weight" and parameter.shape[1] == 2 * WIDTH:
        return math.sqrt(1 / (2 * WIDTH))  # of [CLS] and mean side by side
    return ETAS[of_any_layer(name)]


@pytest.mark.parametrize("settings", KINDS)
def test_the_table_gives_every_parameter_its_scale_and_slots(settings):
    model = match_model(**settings)
    of = {each: group for group in amos_groups(model) for each in group["params"]}
    for name, each in model.named_parameters():
        assert of[each]["scale"] == pytest.approx(eta_of(name, each)), name
        assert of[each]["slots"] == ("rows" if each.ndim == 2 else "scalar"), name


def test_the_kinds_of_model_have_every_weight_of_the_table():
    models = [match_model(**settings) for settings in KINDS]
    names = {name for model in models for name, _ in model.named_parameters()}
    assert {of_any_layer(name) for name in names if "bias" not in name} == set(ETAS)


@given(
    widths=st.lists(st.integers(1, 5), min_size=2, max_size=5),
    num_tokens=st.integers(1, 4),
    is_tied=st.booleans(),
)
def test_groups_hold_every_trainable_parameter_once(widths, num_tokens, is_tied):
    layers = [nn.Linear(m, n) for m, n in pairwise(widths)]
    norm, table = nn.LayerNorm(widths[-1]), nn.Embedding(num_tokens, widths[0])
    decoder = nn.Linear(widths[0], num_tokens)
    if is_tied:
        decoder.weight = table.weight
    model = nn.Sequential(table, *layers, norm, nn.Conv1d(2, 3, 5), decoder)
    model.temperature = nn.Parameter(torch.tensor(1.0))
    filled(model)
    norm.bias.requires_grad_(False)
    expected = sorted(id(each) for each in model.parameters() if each.requires_grad)
    for groups in (
        amos_groups(model),
        *(
            adamw_groups(model, learning_rate=1e-3, weight_decay=0.01, scale=scale)
            for scale in get_args(Scale)
        ),
    ):
        assert sorted(id(each) for group in groups for each in group["params"]) == expected
        assert all(group["params"] for group in groups)


def test_every_option_has_an_implementation():
    assert set(SLOT_SHAPES) == set(get_args(Slots))
    assert get_type_hints(TrainingConfig)["scale"] == Scale


@pytest.mark.parametrize("settings", KINDS)
def test_adamw_decays_what_transformers_trainer_decays(settings):
    model = match_model(**settings)
    decaying, resting = adamw_groups(model, learning_rate=1e-3, weight_decay=0.01)
    assert (decaying["weight_decay"], resting["weight_decay"]) == (0.01, 0.0)
    assert decaying["lr"] == resting["lr"] == 1e-3
    theirs = set(Trainer.get_decay_parameter_names(None, model))  # goes by names, ours by shapes
    ours = {id(each) for each in decaying["params"]}
    found = {name for name, each in model.named_parameters() if id(each) in ours}
    assert found == theirs - {"pair_head.beta"}
    assert all(each.ndim == 2 for each in decaying["params"])
    assert all(each.ndim == 1 for each in resting["params"])


def test_steps_in_units_of_the_parameters():
    model = match_model(head="classifier")
    matrix, start = model.pair_head.dense.weight, model.pair_head.output.weight
    with torch.no_grad():
        matrix.mul_(3)
        start.zero_()
    groups = adamw_groups(model, learning_rate=1e-3, weight_decay=0.01, scale="model")
    of = {each: group for group in groups for each in group["params"]}
    for each in model.parameters():
        is_matrix = each.ndim == 2 and each is not start
        sigma = each.detach().std(correction=0).item() if is_matrix else 0.5
        if each is start:
            sigma = 1 / math.sqrt(WIDTH)
        assert of[each]["lr"] == pytest.approx(1e-3 * sigma)
        decay = of[each]["lr"] * of[each]["weight_decay"]
        assert decay == pytest.approx(1e-5 if each.ndim == 2 else 0)


def test_adamw_moves_parameters_by_the_same_share_of_their_size():
    small, large = nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)
    generator = torch.Generator().manual_seed(5)
    for each, sigma in ((small, 0.01), (large, 1.0)):
        nn.init.normal_(each.weight, std=sigma, generator=generator)
    model = nn.ModuleList([small, large])
    groups = adamw_groups(model, learning_rate=1e-2, weight_decay=0.0, scale="model")
    optimizer = torch.optim.AdamW(groups)
    before = [each.detach().clone() for each in model.parameters()]
    for each in model.parameters():
        each.grad = torch.randn(each.shape, generator=generator)
    optimizer.step()
    for each, old in zip(model.parameters(), before, strict=True):
        assert float((each.detach() - old).norm() / old.norm()) == pytest.approx(1e-2, rel=0.01)


@pytest.mark.parametrize(
    ("optimizer_of", "low", "high"),
    [
        (lambda model: Amos(amos_groups(model), lr=0.005), 0.001, 0.01),
        (lambda model: Amos(amos_groups(model), lr=0.005, momentum=0.9), 1.001, 1.01),
        (lambda model: torch.optim.AdamW(model.parameters()), 2.0, 2.0001),
    ],
    ids=["amos", "amos with momentum", "adamw"],
)
def test_state_of_bert_base(optimizer_of, low, high):
    with torch.device("meta"):
        model = MatchForPairs(MatchConfig())  # of BERT-base's shape
    assert sum(each.numel() for each in model.parameters()) > 109e6
    for each in model.parameters():
        each.grad = torch.empty_like(each)
    optimizer = optimizer_of(model)
    assert state_elements(optimizer) == 0
    optimizer.step()
    share = state_elements(optimizer) / sum(each.numel() for each in model.parameters())
    assert low <= share <= high


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup_steps", [0, 30])
def test_the_rate_is_one_half_after_the_half_life(schedule, warmup_steps):
    rate = partial(schedule, half_life=200, warmup_steps=warmup_steps)
    assert rate(warmup_steps) == 1
    assert rate(warmup_steps + 200) == pytest.approx(0.5, rel=1e-14)


@pytest.mark.parametrize("half_life", [100, 1000])
@pytest.mark.parametrize(
    ("schedule", "shrink"),
    [
        (inverse_time, lambda s, half_life: s**2 / half_life),
        (inverse_square, lambda s, half_life: 2 * (math.sqrt(2) - 1) / half_life * s**1.5),
    ],
)
def test_the_articles_recursion_follows_the_closed_form(schedule, shrink, half_life):
    s = 1.0
    for step in range(10 * half_life):
        assert s == pytest.approx(schedule(step, half_life=half_life, warmup_steps=0), rel=0.01)
        s -= shrink(s, half_life)


@given(
    schedule=st.sampled_from(SCHEDULES),
    half_life=st.floats(1, 1e5),
    warmup_steps=st.integers(0, 50),
)
def test_a_rate_rises_to_one_and_falls_from_there(schedule, half_life, warmup_steps):
    rates = [schedule(step, half_life=half_life, warmup_steps=warmup_steps) for step in range(120)]
    assert all(0 <= each <= 1 for each in rates)
    assert rates[: warmup_steps + 1] == sorted(rates[: warmup_steps + 1])
    assert rates[warmup_steps] == 1
    assert rates[warmup_steps:] == sorted(rates[warmup_steps:], reverse=True)


def test_adamw_has_the_settings_of_transformers_trainer(tmp_path):
    config = TrainingConfig(learning_rate=3e-4)
    optimizer = build_optimizer(match_model(), config)
    arguments = TrainingArguments(str(tmp_path), learning_rate=3e-4, use_cpu=True)
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments)
    assert type(optimizer) is kind is torch.optim.AdamW
    assert {name: optimizer.defaults[name] for name in settings} == settings
    assert all(group["fused"] for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]


def test_fused_adamw_steps_like_the_plain_one():
    fused, plain = match_model(), match_model()
    optimizer = build_optimizer(fused, TrainingConfig(learning_rate=1e-2))
    groups = adamw_groups(plain, learning_rate=1e-2, weight_decay=0.01)
    train(fused, mlm_loss, optimizer, range(5))
    train(plain, mlm_loss, torch.optim.AdamW(groups, foreach=False, fused=False), range(5))
    torch.testing.assert_close(dict(fused.named_parameters()), dict(plain.named_parameters()))


def test_amos_is_built_as_the_recipe_says():
    amos = AmosConfig(beta=0.9, momentum=0.5, initial_b=2.0)
    config = TrainingConfig(optimizer="amos", learning_rate=0.03, amos=amos)
    model = match_model()
    optimizer = build_optimizer(model, config)
    assert isinstance(optimizer, Amos)
    for built, expected in zip(optimizer.param_groups, amos_groups(model), strict=True):
        assert built == {**expected, **asdict(amos), "lr": 0.03, "clip": None}


def rates(scheduler, num_steps):
    """The first group's rate at each step."""
    found = []
    for _ in range(num_steps):
        found.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return found


def one_rate():
    return torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.5)


@pytest.mark.parametrize("name", get_args(Schedule))
def test_a_stage_has_the_schedule_of_its_recipe(name):
    config = TrainingConfig(lr_scheduler_type=name, half_life=30.0)
    built = build_scheduler(one_rate(), config, num_steps=100, warmup_steps=10)
    own = {"inverse_time": inverse_time, "inverse_square": inverse_square}
    if name in own:
        factor = partial(own[name], half_life=30.0, warmup_steps=10)
        expected = [0.5 * factor(step) for step in range(100)]
    else:
        expected = rates(get_scheduler(name, one_rate(), 10, 100), 100)
    assert rates(built, 100) == pytest.approx(expected, rel=1e-14)


def test_the_linear_schedule_by_hand():
    built = build_scheduler(one_rate(), TrainingConfig(), num_steps=10, warmup_steps=2)
    expected = [0, 0.5, 1, *(k / 8 for k in range(7, 0, -1))]
    assert rates(built, 10) == pytest.approx([0.5 * each for each in expected])


@pytest.mark.parametrize("name", ["inverse_time", "inverse_square"])
def test_the_half_life_is_a_third_of_the_stage_unless_said(name):
    config = TrainingConfig(lr_scheduler_type=name)
    built = build_scheduler(one_rate(), config, num_steps=90, warmup_steps=7)
    assert rates(built, 90)[7 + 30] == pytest.approx(0.25, rel=1e-14)


def mlm_loss(model, step):
    """Loss of a step's random batch."""
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(7, 40, (4, 8), generator=generator)
    return nn.functional.cross_entropy(model(ids).logits.flatten(0, 1), ids.flatten())


@pytest.mark.parametrize(
    "config",
    [
        TrainingConfig(optimizer="amos", learning_rate=0.1, lr_scheduler_type="constant"),
        TrainingConfig(
            optimizer="amos",
            learning_rate=0.1,
            lr_scheduler_type="inverse_square",
            amos=AmosConfig(beta=0.9, momentum=0.9, initial_b=1.0),
        ),
        TrainingConfig(learning_rate=1e-2),
        TrainingConfig(learning_rate=0.1, scale="model", lr_scheduler_type="inverse_time"),
    ],
    ids=["amos", "amos with momentum", "adamw", "adamw in units of the model"],
)
def test_a_resumed_training_ends_like_an_uninterrupted_one(config, tmp_path):
    def parts(model):
        optimizer = build_optimizer(model, config)
        return optimizer, build_scheduler(optimizer, config, num_steps=20, warmup_steps=4)

    whole, cut = match_model(), match_model()
    optimizer, scheduler = parts(whole)
    train(whole, mlm_loss, optimizer, range(20), scheduler)
    stopped = parts(cut)
    train(cut, mlm_loss, stopped[0], range(7), stopped[1])
    torch.save([cut.state_dict(), *(each.state_dict() for each in stopped)], tmp_path / "state")
    weights, *states = torch.load(tmp_path / "state", weights_only=True)
    resumed = match_model()
    resumed.load_state_dict(weights)
    restored = parts(resumed)  # as in Trainer, of the trained weights
    for each, state in zip(restored, states, strict=True):
        each.load_state_dict(state)
    assert restored[1].get_last_lr() == stopped[1].get_last_lr()
    train(resumed, mlm_loss, restored[0], range(7, 20), restored[1])
    for there, here in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(there, here)


def test_rates_fall_from_the_heads_to_the_embedding(tiny_model):
    groups = adamw_groups(tiny_model, learning_rate=1.0, weight_decay=0.01, layer_decay=0.5)
    rates = {id(each): group["lr"] for group in groups for each in group["params"]}
    for name, parameter in tiny_model.named_parameters():
        if name.startswith("encoder.embeddings."):
            expected = 0.5**3
        elif name.startswith("encoder.layers."):
            expected = 0.5 ** (2 - int(name.split(".")[2]))
        else:
            expected = 1.0
        assert rates[id(parameter)] == expected, name
    assert len(rates) == len(list(tiny_model.parameters()))
    assert all(each.ndim >= 2 for group in groups if group["weight_decay"]
               for each in group["params"])  # fmt: skip


@pytest.mark.parametrize("scale", ["none", "model"])
def test_the_token_embedding_alone_has_a_rate_of_its_own(tiny_model, scale):
    rates = []
    for factor in (1.0, 4.0):
        groups = adamw_groups(
            tiny_model, learning_rate=0.5, weight_decay=0.0, scale=scale, embedding_rate=factor
        )
        rates.append({id(each): group["lr"] for group in groups for each in group["params"]})
    for name, parameter in tiny_model.named_parameters():
        expected = 4.0 if name == "encoder.embeddings.word.weight" else 1.0
        assert rates[1][id(parameter)] / rates[0][id(parameter)] == expected, name
