from __future__ import annotations

import dataclasses
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import torch

from desmatch.model.attention import ATTENTIONS
from desmatch.model.checkpoints import build_model
from desmatch.model.configuration import MatchConfig
from desmatch.model.convert import POSITIONS
from desmatch.model.heads import PAIR_HEADS
from desmatch.model.initialization import VARIANCES
from desmatch.model.norms import NORMS
from desmatch.recipe import ModelConfig
from tests.model.conftest import PAIRS, packed_pairs

OPTIONS = {
    name: set(get_args(hint))
    for name, hint in get_type_hints(ModelConfig).items()
    if get_origin(hint) is Literal
}
TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def test_the_options_are_frozen():
    assert {
        "position": {"absolute", "relative", "rotary"},
        "norm": {"post", "pre", "deepnorm"},
        "deepnorm_rule": {"paper", "adam"},
        "initialization": {
            "bert", "arithmetic", "geometric", "quadratic", "fan-in", "fan-out", "deepnorm",
        },
        "head": {"label-tokens", "classifier", "naive-bayes"},
        "pooling": {"cls", "mean", "cls-mean"},
    } == OPTIONS  # fmt: skip


def test_every_option_has_its_implementation_and_the_other_way_round():
    assert OPTIONS["position"] == set(ATTENTIONS) == set(POSITIONS.values())
    assert OPTIONS["norm"] == set(NORMS)
    assert OPTIONS["head"] == set(PAIR_HEADS)
    assert OPTIONS["initialization"] == {*VARIANCES, "bert"}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in sorted(OPTIONS) for value in sorted(OPTIONS[name])],
)
def test_every_option_makes_a_model_that_runs(name, value):
    needed = {"pooling": {"head": "classifier"}, "deepnorm_rule": {"norm": "deepnorm"}}
    config = ModelConfig(**TINY, **needed.get(name, {}), **{name: value})
    model = build_model(config, vocab_size=40, max_length=32).eval()
    flat, packed = packed_pairs(PAIRS)
    pair_cells = torch.from_numpy(packed.cells[flat.starts])
    assert model(**packed.inputs, pair_cells=pair_cells).pair_logits.isfinite().all()


def test_what_a_recipe_says_reaches_the_model():
    recipe = ModelConfig(
        **TINY,
        position="rotary",
        hidden_dropout_prob=0.2,
        attention_probs_dropout_prob=0.3,
        norm="deepnorm",
        deepnorm_rule="adam",
        initialization="quadratic",
        mlm_head_dense=False,
        head="classifier",
        pooling="cls-mean",
        num_dropout_samples=4,
    )
    model = build_model(recipe, vocab_size=40, max_length=100)
    shared = {field.name for field in dataclasses.fields(recipe)} - {"init", "reference_counts"}
    for name in shared:
        assert getattr(model.config, name) == getattr(recipe, name), name
    assert model.config.vocab_size == 40
    assert model.config.max_position_embeddings >= 100


def test_a_config_is_the_same_after_saving(tmp_path):
    config = MatchConfig(
        vocab_size=50, position="relative", norm="pre", residual_scale=1.5, pooling="mean"
    )
    config.save_pretrained(tmp_path)
    again = MatchConfig.from_pretrained(tmp_path)
    assert again.to_dict() == config.to_dict()
