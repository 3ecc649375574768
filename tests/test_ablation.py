"""The ablation's gains and its choice of what goes together."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from desmatch.recipe_file import load_recipe, recipe_path

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def modules():
    """The modules of the gains and of the techniques, found as the script finds them."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import ablation
        import ablation_gain
        import ablation_techniques
    finally:
        sys.path.remove(str(BENCHMARKS))
    return ablation_gain, ablation_techniques, ablation


def made_up(seed, *, quality, shared):
    """Scores of 600 rows in 300 components: what two models share, and their own noise."""
    rng = np.random.default_rng(seed)
    labels = np.tile([0, 1], 300)
    return labels, quality * labels + shared + 0.3 * rng.normal(size=600)


def test_a_gain_is_the_mean_difference_and_its_interval_holds_both_errors(modules):
    gain_of, *_ = modules
    shared = np.random.default_rng(9).normal(size=600)
    groups = np.repeat(np.arange(300), 2)
    labels, _ = made_up(0, quality=1, shared=shared)
    first = [made_up(seed, quality=0.8, shared=shared)[1] for seed in (1, 2, 3)]
    second = [made_up(seed, quality=1.4, shared=shared)[1] for seed in (4, 5, 6)]
    gain = gain_of.paired_gain(labels, groups, first, second)
    expected = np.mean([roc_auc_score(labels, b) - roc_auc_score(labels, a)
                        for a, b in zip(first, second, strict=True)])  # fmt: skip
    assert gain.mean == pytest.approx(expected, abs=1e-12)
    assert 0 < gain.low < gain.mean < gain.high
    same = gain_of.paired_gain(labels, groups, first, first)
    assert same == (0.0, 0.0, 0.0)
    rows_only = gain_of.paired_gain(labels, groups, first[:1], second[:1])
    wild = [made_up(seed, quality=q, shared=shared)[1] for seed, q in ((4, 0.2), (5, 1.4), (6, 3))]
    unsure = gain_of.paired_gain(labels, groups, first, wild)
    assert unsure.high - unsure.low > 2 * (rows_only.high - rows_only.low)


def test_a_table_pairs_the_seeds_that_both_have(modules):
    gain_of, *_ = modules
    rng = np.random.default_rng(0)
    labels, groups = np.tile([0, 1], 50), np.arange(100)

    def run(quality):
        scores = quality * labels + rng.normal(size=100)
        columns = {"row": groups, "label": labels, "group": groups, "honest_score": scores}
        return columns, 2.0 + quality

    scores = {
        "reference": {0: run(0.5), 1: run(0.5)},
        "better": {0: run(3.0), 1: run(3.0), 2: run(3.0)},
        "once": {1: run(0.5)},
        "never": {},
    }
    lines = gain_of.table_of(scores)
    assert [line["name"] for line in lines] == ["reference", "better", "once"]
    assert [line["seeds"] for line in lines] == [2, 2, 1]
    assert lines[1]["verdict"] == "helps"
    assert lines[1]["extra_minutes"] == pytest.approx(2.5)
    assert lines[2]["verdict"] == "one seed"
    text = gain_of.to_markdown({"alone": lines, "together": [], "less_each": []})
    assert text.count("\n| ") == 4
    other = {**run(0.5)[0], "row": groups + 1}
    with pytest.raises(ValueError, match="other rows"):
        gain_of.table_of({**scores, "better": {0: (other, 1.0)}})


def test_every_technique_is_a_recipe_and_changes_the_reference(modules):
    _, techniques, _ = modules
    path = recipe_path("baseline")
    reference = load_recipe(path, techniques.REFERENCE.options)
    for name, technique in techniques.TECHNIQUES.items():
        options = [*techniques.REFERENCE.options, *technique.options]
        assert load_recipe(path, options) != reference, name
        assert name.replace("-", "").isalnum()


def test_of_two_techniques_that_set_one_value_the_better_is_chosen(modules):
    _, techniques, _ = modules
    assert techniques.best_set(["pgd", "ema", "fgm", "swa", "mask-30"]) == ["pgd", "ema", "mask-30"]
    assert techniques.best_set([]) == []


def test_the_set_of_those_that_help_is_compared_with_what_is_left_of_it(modules):
    *_, ablation = modules
    verdicts = {"fgm": "helps", "pgd": "helps", "ema": "noise", "closure": "helps"}
    lines = [{"name": name, "verdict": verdict} for name, verdict in verdicts.items()]
    together = ablation.helping_set(lines)
    assert together == ["fgm", "closure"]
    assert ablation.less_each(together) == {"fgm": ["closure"], "closure": ["fgm"]}
