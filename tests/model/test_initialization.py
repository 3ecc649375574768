from __future__ import annotations

import math

import pytest
import torch

from desmatch.model.configuration import MatchConfig
from desmatch.model.heads import MatchForPairs
from desmatch.model.initialization import VARIANCES, fill_matrix_, truncated_normal_
from desmatch.model.layers import LayerNorm, Linear
from desmatch.runs import seed_everything
from tests.model.conftest import SHAPE

AVERAGES = ("geometric", "arithmetic", "quadratic")
TRUNCATED = 0.8796
"""Deviation of a standard normal drawn again beyond 2."""


@pytest.fixture(autouse=True)
def _seeded():
    seed_everything(0)


def fresh(**changes):
    return MatchForPairs(MatchConfig(**{**SHAPE, "hidden_size": 64, "intermediate_size": 256,
                                        **changes}))  # fmt: skip


@pytest.mark.parametrize("scheme", sorted(VARIANCES))
def test_entries_have_the_variance_of_the_scheme(scheme):
    weight = torch.empty(200, 800)
    fill_matrix_(weight, scheme=scheme, sigma=0.02)
    assert weight.mean().item() == pytest.approx(0, abs=5e-4)
    assert weight.var().item() == pytest.approx(VARIANCES[scheme](800, 200), rel=0.02)


def test_the_variances_are_those_of_the_averages():
    m, n = 800, 200
    expected = {
        "arithmetic": 1 / ((m + n) / 2),
        "geometric": 1 / (m * n) ** 0.5,
        "quadratic": 1 / ((m * m + n * n) / (m + n)),
        "fan-in": 1 / m,
        "fan-out": 1 / n,
        "deepnorm": 1 / ((m + n) / 2),
    }
    found = {scheme: variance(m, n) for scheme, variance in VARIANCES.items()}
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("size", [1, 16, 768])
def test_all_averages_of_a_square_matrix_are_one(size):
    found = [VARIANCES[scheme](size, size) for scheme in VARIANCES]
    assert found == pytest.approx([1 / size] * len(found))


def test_bert_entries_are_normal_up_to_two_deviations():
    weight = torch.empty(1000, 1000)
    truncated_normal_(weight, 0.02)
    assert weight.abs().max().item() <= 0.04
    assert weight.std().item() == pytest.approx(0.0176, rel=0.01)
    assert weight.mean().item() == pytest.approx(0, abs=1e-4)


def second_moment(x):
    return (x.double() ** 2).mean().item()


def chain_ratios(scheme):
    """Growth of the second moment through 768 -> 3072 -> 768 without activation, there and back."""
    first, second = Linear(768, 3072), Linear(3072, 768)
    for each in (first, second):
        fill_matrix_(each.weight.detach(), scheme=scheme, sigma=0.02)
        torch.nn.init.zeros_(each.bias)
    x = torch.randn(128, 768, requires_grad=True)
    y = second(first(x))
    grad = torch.randn(y.shape)
    y.backward(grad)
    there = second_moment(y.detach()) / second_moment(x.detach())
    return there, second_moment(x.grad) / second_moment(grad)


CHAIN = {
    "geometric": 1.0,
    "arithmetic": 4 * 768 * 3072 / (768 + 3072) ** 2,
    "quadratic": 768 * 3072 * (768 + 3072) ** 2 / (768**2 + 3072**2) ** 2,
}
"""mn t^2 with t the variance of an entry."""


@pytest.mark.parametrize("scheme", AVERAGES)
def test_a_feed_forward_block_keeps_the_second_moment_with_the_geometric_average(scheme):
    assert pytest.approx((1.0, 0.64, 0.346), abs=5e-4) == tuple(CHAIN[s] for s in AVERAGES)
    assert chain_ratios(scheme) == pytest.approx((CHAIN[scheme], CHAIN[scheme]), rel=0.03)


def test_one_matrix_alone_orders_the_averages_the_other_way():
    m, n = 768, 3072
    loss = {}
    for scheme in AVERAGES:
        t = VARIANCES[scheme](m, n)
        loss[scheme] = (m * t - 1) ** 2 + (n * t - 1) ** 2
    kept = sorted(AVERAGES, key=lambda scheme: abs(1 - CHAIN[scheme]))
    assert sorted(AVERAGES, key=loss.get) == kept[::-1] == ["quadratic", "arithmetic", "geometric"]


def test_the_quadratic_average_is_the_minimum_of_that_objective():
    m, n = 768, 3072
    t = torch.tensor(VARIANCES["quadratic"](m, n), dtype=torch.float64, requires_grad=True)
    ((m * t - 1) ** 2 + (n * t - 1) ** 2).backward()
    assert t.grad.item() == pytest.approx(0, abs=1e-6 * m)


@pytest.mark.parametrize("scheme", [*sorted(VARIANCES), "bert"])
def test_all_matrices_of_a_model_start_by_the_scheme(scheme):
    model = fresh(initialization=scheme, head="classifier", pooling="cls-mean")
    for name, module in model.named_modules():
        if not isinstance(module, Linear) or name == "pair_head.output":
            continue
        n, m = module.weight.shape
        for block, gain in zip(module.weight.chunk(len(module.gains)), module.gains, strict=True):
            m_and_n = m, n // len(module.gains)
            expected = 0.02 * TRUNCATED if scheme == "bert" else VARIANCES[scheme](*m_and_n) ** 0.5
            assert block.std().item() == pytest.approx(gain * expected, rel=0.05), name


def test_vectors_start_at_zero_and_scales_at_one_and_embeddings_by_sigma():
    model = fresh(initialization="geometric", initializer_range=0.03, vocab_size=4000)
    for module in model.modules():
        if isinstance(module, (Linear, LayerNorm)):
            assert not module.bias.any()
        if isinstance(module, LayerNorm):
            assert (module.weight == 1).all()
    assert not model.mlm_head.bias.any()
    words = model.get_input_embeddings().weight
    assert words.std().item() == pytest.approx(0.03 * TRUNCATED, rel=0.01)


def gains(model):
    """Name of each matrix to its measured deviation over Xavier's, query, key and value apart."""
    found = {}
    for name, module in model.named_modules():
        if not isinstance(module, Linear):
            continue
        names = ("query", "key", "value") if name.endswith("qkv") else (name.split(".")[-1],)
        for part, block in zip(names, module.weight.chunk(len(names)), strict=True):
            n, m = block.shape
            found[name.replace("qkv", part)] = block.std().item() / math.sqrt(2 / (m + n))
    return found


@pytest.mark.parametrize(("rule", "beta"), [("paper", 24**-0.25), ("adam", 6**-0.5)])
def test_deepnorm_scales_value_output_and_feed_forward_alone(rule, beta):
    choices = {"initialization": "deepnorm", "norm": "deepnorm", "deepnorm_rule": rule}
    model = fresh(num_hidden_layers=3, **choices)
    scaled = ("value", "attention.output", "expand", "contract")
    for name, gain in gains(model).items():
        expected = beta if name.endswith(scaled) else 1.0
        assert gain == pytest.approx(expected, rel=0.05), name


@pytest.mark.parametrize(
    ("changes", "alpha"),
    [
        ({}, 24**0.25),
        ({"deepnorm_rule": "adam"}, 24**0.5),
        ({"residual_scale": 1.5, "deepnorm_rule": "adam"}, 1.5),
    ],
)
def test_alpha_follows_the_rule(changes, alpha):
    config = MatchConfig(num_hidden_layers=12, norm="deepnorm", **changes)
    assert config.alpha == pytest.approx(alpha)
    assert config.beta == 1.0  # the scheme, not the norm, decides it
