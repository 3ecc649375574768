from __future__ import annotations

import dataclasses
from typing import get_args

import pytest
import yaml

from desmatch.ensemble.rules import RULES
from desmatch.errors import UserError
from desmatch.recipe import Combine, EnsembleConfig, Recipe
from desmatch.recipe_file import (
    flat_keys,
    load_recipe,
    member_recipe,
    recipe_names,
    recipe_path,
    recipe_to_yaml,
)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_of_the_package_loads_and_survives_a_round_trip(name, tmp_path):
    recipe = load_recipe(recipe_path(name))
    path = tmp_path / "again.yaml"
    path.write_text(recipe_to_yaml(recipe))
    assert load_recipe(path) == recipe


def test_the_recipes_are_those_that_are_documented():
    ensembles, single = ["champion", "champion-gpu"], ["baseline", "demo", "gpu", "semi-supervised"]
    assert recipe_names() == sorted([*ensembles, *single, "strong"])


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_holds_only_differences_from_the_defaults(name):
    def differences(values, defaults):
        for key, value in values.items():
            if isinstance(value, dict):
                yield from differences(value, defaults[key])
            else:
                yield key, value, defaults[key]

    values = yaml.safe_load(recipe_path(name).read_text())
    values.pop("members", None)
    for key, value, default in differences(values, dataclasses.asdict(Recipe())):
        assert value != default, f"{key}: {value} is the default"


def test_options_win_over_the_file_and_the_file_over_the_defaults(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 3\npretrain:\n  batch_size: 32\n")
    recipe = load_recipe(path, ["--pretrain.batch_size=16", "--pretrain.learning_rate", "2e-3"])
    assert (recipe.seed, recipe.pretrain.batch_size, recipe.pretrain.learning_rate) == (
        3,
        16,
        0.002,
    )
    assert recipe.finetune.batch_size == Recipe().finetune.batch_size


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("pretrain:\n  lerning_rate: 1\n",
         "unknown key 'pretrain.lerning_rate'; did you mean 'pretrain.learning_rate'?"),
        ("pretrian:\n  batch_size: 1\n", "unknown key 'pretrian'; did you mean 'pretrain'?"),
        ("seed: one\n", 'Parser key "seed"'),
        ("pretrain:\n  batch_size: 1.5\n", 'Parser key "pretrain.batch_size"'),
        ("data:\n  max_length: 3\n", "data.max_length: expected 5 or more, got 3"),
        ("model:\n  hidden_size: 30\n  num_attention_heads: 4\n",
         "model.hidden_size: expected a multiple of model.num_attention_heads (4), got 30"),
        ("seed: [\n", "mine.yaml:2: not valid YAML"),
        ("#" * (1 << 20) + "\n", "expected YAML of 1048576 bytes at most, got 1048577"),
        (f"seed: {'9' * 5000}", "mine.yaml: not valid YAML: Exceeds the limit"),
        (f"seed: {'[' * 5000}", "mine.yaml: not valid YAML: maximum recursion depth"),
        ("- seed\n", "mine.yaml:1: expected keys and values, got list"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_by_name(tmp_path, content, reason):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(UserError) as raised:
        load_recipe(path)
    assert reason in str(raised.value)
    assert "mine.yaml" in str(raised.value)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--pretrain.lerning_rate", "1"],
         "--pretrain.lerning_rate: no such option; did you mean 'pretrain.learning_rate'?"),
        (["--data.rare", "drop"], 'Parser key "data.rare"'),
        (["stray"], "stray: not expected here"),
        (["--validation.fold=10"], "validation.fold: expected 0 to 9, got 10"),
        (["--validation.split_seed=-1"],
         "validation.split_seed: expected 0 to 4294967295, got -1"),
        (["--ensemble.combine=mean"], 'Parser key "ensemble.combine"'),
    ],
)  # fmt: skip
def test_a_bad_option_is_refused_by_name(words, reason):
    with pytest.raises(UserError) as raised:
        load_recipe(recipe_path("baseline"), words)
    assert reason in str(raised.value)


def test_a_members_recipe_is_that_of_all_with_its_differences(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "seed: 4\ndata: {max_length: 16}\nensemble: {combine: stacking}\nmembers:\n"
        "  plain: {}\n  small: {data.min_count: 7, seed: 1, model.init: null}\n"
        "  nested: {data: {min_count: 8}, finetune.adversarial.kind: fgm}\n"
    )
    recipe = load_recipe(path, ["--model.init=here", "--data.min_count=2"])
    plain, small, nested = (member_recipe(recipe, name) for name in recipe.members)
    alone = dataclasses.replace(recipe.validation, split_seed=4)
    everything = {"validation": alone, "members": {}, "ensemble": EnsembleConfig()}
    assert plain == dataclasses.replace(recipe, **everything)
    assert (small.seed, small.data.min_count, small.model.init) == (1, 7, None)
    assert (nested.data.min_count, nested.finetune.adversarial.kind) == (8, "fgm")
    for member in (plain, small, nested):
        assert member.data.max_length == 16
        assert member.validation.seed_of_folds(member.seed) == 4
    again = tmp_path / "again.yaml"
    again.write_text(recipe_to_yaml(recipe))
    assert load_recipe(again) == recipe


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ("{a: {}, small: {data.min_cuont: 5}}",
         "members.small.data.min_cuont: no such key; did you mean 'data.min_count'?"),
        ("{a: {}, b: {data.min_count: x}}", 'members.b: Parser key "data.min_count"'),
        ("{a: {}, b: {validation.num_folds: 3}}",
         "members.b.validation.num_folds: is the same for all members; set it outside of members"),
        ("{a: {}, b: {data: 5}}",
         "members.b.data: expected one value of it, such as data.max_length"),
        ("{a: {}, b: {data.max_length: 3}}",
         "members.b: data.max_length: expected 5 or more, got 3"),
        ("{a: {}, b: }", "members.b: expected keys and values, got None; write {} where"),
        ("{a: {}}", "members: expected two or more, or none, got ['a']"),
        ("{a/x: {}, b: {}}", "members: expected names of letters, digits, - and _, got 'a/x'"),
        ("{1: {}, 2: {}}", "members: expected names of letters, digits, - and _, got 1"),
    ],
)  # fmt: skip
def test_a_bad_member_is_refused_by_name(tmp_path, members, reason):
    path = tmp_path / "mine.yaml"
    path.write_text(f"members: {members}\n")
    with pytest.raises(UserError) as raised:
        load_recipe(path)
    assert reason in str(raised.value)


def test_a_recipe_names_the_rules_that_there_are():
    assert get_args(Combine) == tuple(RULES)


def test_an_unknown_recipe_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'baseline'") as raised:
        recipe_path("basline")
    assert "demo" in str(raised.value)
    with pytest.raises(UserError, match="no such file"):
        recipe_path("elsewhere.yaml")


def test_the_keys_of_a_recipe_are_frozen():
    keys = set(flat_keys(Recipe))
    assert {"seed", "data.rare", "pseudo_labels.training.mlm_probability"} <= keys
    assert len(keys) == 209
