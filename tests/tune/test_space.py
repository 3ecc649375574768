from __future__ import annotations

import dataclasses
import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from desmatch.errors import UserError
from desmatch.recipe import Recipe
from desmatch.recipe_file import changed_recipe, load_recipe, recipe_to_differences
from desmatch.runs import value_digest
from desmatch.tune.ranges import Choices, Span, parse_range
from desmatch.tune.space import (
    DEFAULT_SPACE,
    own_values,
    read_space,
    recipe_of,
    space_to_json,
    value_at,
)

NUMBERS = st.one_of(
    st.integers(-(10**6), 10**6), st.floats(-1e6, 1e6).map(lambda each: float(f"{each:.6g}"))
)
WORDS = st.text("abc", min_size=1, max_size=5)


@given(st.tuples(NUMBERS, NUMBERS), st.booleans())
def test_a_range_is_read_as_it_is_written_or_refused(ends, is_log):
    low, high = ends
    written = {"low": low, "high": high, "log": is_log}
    if low < high and (low > 0 or not is_log):
        span = parse_range(yaml.safe_load(yaml.safe_dump(written)))
        assert span == Span(low, high, log=is_log)
        assert span.is_whole == (isinstance(low, int) and isinstance(high, int))
        assert span.holds(low)
        assert span.holds(high)
        assert not span.holds(math.nextafter(high, math.inf))
        assert parse_range(space_to_json({"key": span})["key"]) == span
    else:
        with pytest.raises(ValueError, match=r"empty range|more than 0"):
            parse_range(written)


@given(st.integers(-50, 50), st.integers(1, 9), st.integers(1, 9), st.integers(-99, 199))
def test_a_range_with_steps_holds_what_lies_on_them(low, step, count, value):
    high = low + step * count
    span = parse_range({"low": low, "high": high, "step": step})
    assert span.holds(value) == (value in range(low, high + 1, step))
    if step > 1:
        with pytest.raises(ValueError, match=r"do not end at|no more than the range"):
            parse_range({"low": low, "high": high + 1, "step": step})


@given(st.lists(st.one_of(NUMBERS, WORDS, st.booleans(), st.none()), max_size=5))
def test_choices_are_read_as_they_are_written_or_are_too_few(values):
    if len(values) < 2:
        with pytest.raises(ValueError, match="two choices or more"):
            parse_range(values)
    else:
        assert parse_range(values) == Choices(tuple(values))


@settings(deadline=None)
@given(st.integers(1, 6), st.floats(1e-6, 1e-2), st.sampled_from(["none", "fgm"]))
def test_the_values_of_a_trial_become_a_recipe(epochs, rate, kind):
    values = {
        "finetune.num_train_epochs": epochs,
        "finetune.learning_rate": rate,
        "finetune.adversarial.kind": kind,
    }
    recipe = recipe_of(Recipe(seed=3), values, "trial 0")
    assert {key: value_at(recipe, key) for key in values} == values
    assert isinstance(recipe.finetune.num_train_epochs, float)
    back = {key: value_at(Recipe(), key) for key in values}
    assert recipe_of(recipe, back, "back") == Recipe(seed=3)


def test_the_values_of_a_trial_are_those_that_a_file_would_give():
    values = {"finetune.num_train_epochs": 3, "model.hidden_size": 60, "model.head": "classifier",
              "model.num_attention_heads": 5, "pretrain.warmup_ratio": None}  # fmt: skip
    of_trial, of_file = recipe_of(Recipe(), values, "a"), changed_recipe(Recipe(), values, "b")
    assert value_digest(dataclasses.asdict(of_trial)) == value_digest(dataclasses.asdict(of_file))


def test_values_that_do_not_go_together_are_refused_in_the_name_of_the_trial():
    with pytest.raises(UserError, match=r"^trial 7: model\.hidden_size: expected a multiple of"):
        recipe_of(Recipe(), {"model.hidden_size": 30}, "trial 7")


def test_a_recipe_is_that_of_its_differences(tmp_path, tiny_recipe):
    path = tmp_path / "best.yaml"
    values = {"finetune.warmup_ratio": 0.2, "pretrain.amos.beta": 0.9, "model.init": "somewhere"}
    recipe = changed_recipe(tiny_recipe, values, "trial")
    differences = recipe_to_differences(recipe)
    assert differences["pretrain"]["amos"] == {"beta": 0.9}
    path.write_text(yaml.safe_dump(differences))
    assert load_recipe(path) == recipe
    assert recipe_to_differences(Recipe()) == {}


def test_keys_are_dotted_or_nested_and_ends_keep_their_kind(yaml_of):
    space = read_space(yaml_of("""
        finetune.learning_rate: {low: 1e-5, high: 5e-4, log: true}
        finetune:
          num_train_epochs: {low: 1, high: 5}
          adversarial: {kind: [none, fgm]}
        pretrain.warmup_ratio: [null, 1e-1]
        data.min_count: {low: 1, high: 9, step: 4}
        """), Recipe())  # fmt: skip
    assert space == {
        "finetune.learning_rate": Span(1e-5, 5e-4, log=True),
        "finetune.num_train_epochs": Span(1, 5),
        "finetune.adversarial.kind": Choices(("none", "fgm")),
        "pretrain.warmup_ratio": Choices((None, 0.1)),
        "data.min_count": Span(1, 9, step=4),
    }
    assert space["finetune.num_train_epochs"].is_whole
    own = own_values(Recipe(), space)
    assert own == {"finetune.learning_rate": 1e-4, "finetune.num_train_epochs": 1,
                   "finetune.adversarial.kind": "none", "pretrain.warmup_ratio": None,
                   "data.min_count": 5}  # fmt: skip
    outside = changed_recipe(Recipe(), {"data.min_count": 4}, "here")
    assert own_values(outside, space) is None


def test_all_mistakes_are_told_at_once_by_line(yaml_of):
    path = yaml_of("""finetune.learning_rat: {low: 1e-5, high: 5e-4}
finetune:
  num_train_epochs: {low: 5, high: 5}
  adversarial.kind: [none, fgn]
  keep: {low: 1, high: 2}
data.min_count: {low: 1.5, high: 3}
validation.split_seed: [1, 2]
finetune.label_smoothing: {low: 0.1, high: 1.5}
finetune.layer_decay: {lo: 1, high: 2}
finetune.adversarial: [a, b]
finetune.weight_decay: 3
pretrain.keep: [null, best]
pretrain.batch_size: {low: 8, high: 32, log: yes please}
pretrain.batch_size: {low: 8, high: 32}
pretrain.batch_size: {low: 8, high: 32}
model.norm: [post]
pretrain.learning_rate: [1e-4, 0.0001]
""")
    with pytest.raises(UserError) as error:
        read_space(path, Recipe())
    expected = {
        1: "no such key of a recipe; did you mean 'finetune.learning_rate'?",
        3: "an empty range: low 5 is not below high 5",
        4: "Got value: fgn",
        5: "finetune.keep: is no number; give choices, such as [best, last]",
        6: "expected whole numbers",
        7: "cannot be searched, as trials are compared on the same rows",
        8: "expected a share in [0, 1), got 1.5",
        9: "unknown key 'lo'; did you mean 'low'?",
        10: "such as finetune.adversarial.kind",
        11: "expected {low: ..., high: ...} or [one, another], got 3",
        12: "null is no value of it",
        13: "log: expected true or false, got 'yes please'",
        15: "is given twice",
        16: "expected two choices or more",
        17: "a choice is given twice",
    }
    lines = str(error.value).split("\n")
    assert [line.split(":")[1] for line in lines] == [str(line) for line in expected]
    for line, reason in zip(lines, expected.values(), strict=True):
        assert line.startswith(f"{path}:")
        assert reason in line


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", ":1: no key"),
        ("- a", ":1: expected keys and ranges"),
        ("a: {low: 1,\nhigh: [", ":2: not valid YAML"),
        ("[a]: 1", ":1: expected the key of a recipe"),
        ("#" * (1 << 20) + "\n", "expected YAML of 1048576 bytes at most, got 1048577"),
        (f"seed: [{'9' * 5000}]", ":1: not valid YAML: Exceeds the limit"),
        (f"seed: {'[' * 5000}", "space.yaml: not valid YAML: maximum recursion depth"),
    ],
)
def test_a_file_that_is_no_space_is_refused(yaml_of, text, reason):
    with pytest.raises(UserError) as error:
        read_space(yaml_of(text), Recipe())
    assert reason in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--space .*none\.yaml: no such file"):
        read_space(tmp_path / "none.yaml", Recipe())


def test_the_default_space_searches_the_stage_on_labels_and_holds_the_defaults():
    space = read_space(DEFAULT_SPACE, Recipe())
    assert {key.partition(".")[0] for key in space} == {"finetune"}
    assert own_values(Recipe(), space) is not None


@pytest.fixture
def yaml_of(tmp_path):
    def write(text):
        path = tmp_path / "space.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write
