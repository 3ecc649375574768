from __future__ import annotations

import dataclasses

import pytest
import yaml

from desmatch.errors import UserError
from desmatch.recipe import Recipe
from desmatch.recipe_file import flat_keys, load_recipe, recipe_names, recipe_path, recipe_to_yaml


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_of_the_package_loads_and_survives_a_round_trip(name, tmp_path):
    recipe = load_recipe(recipe_path(name))
    path = tmp_path / "again.yaml"
    path.write_text(recipe_to_yaml(recipe))
    assert load_recipe(path) == recipe


def test_the_recipes_are_those_that_are_documented():
    assert recipe_names() == ["baseline", "demo", "semi-supervised"]


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_holds_only_differences_from_the_defaults(name):
    def differences(values, defaults):
        for key, value in values.items():
            if isinstance(value, dict):
                yield from differences(value, defaults[key])
            else:
                yield key, value, defaults[key]

    values = yaml.safe_load(recipe_path(name).read_text())
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
    ],
)  # fmt: skip
def test_a_bad_option_is_refused_by_name(words, reason):
    with pytest.raises(UserError) as raised:
        load_recipe(recipe_path("baseline"), words)
    assert reason in str(raised.value)


def test_an_unknown_recipe_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'baseline'") as raised:
        recipe_path("basline")
    assert "demo" in str(raised.value)
    with pytest.raises(UserError, match="no such file"):
        recipe_path("elsewhere.yaml")


def test_the_keys_of_a_recipe_are_frozen():
    keys = set(flat_keys(Recipe))
    assert {"seed", "data.rare", "pseudo_labels.training.mlm_probability"} <= keys
    assert len(keys) == 159
