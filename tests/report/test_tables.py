import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desmatch.report import tables
from desmatch.report.words import PLACED

NUMBERS = st.floats(-1e6, 1e6) | st.integers(-1000, 1000) | st.sampled_from([math.nan, math.inf])
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.sampled_from(["", "x", "a b"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["auc", "name", "interval"]), inner)
    ),
    max_leaves=6,
)
KEYS = sorted(PLACED)


def test_the_first_line_is_the_figure_that_the_run_recommends():
    given_ = {"name": "weighted_auc", "value": 0.9, "interval": [0.8, 0.95], "why": "so"}
    found = tables.headline({"auc": 0.7, "headline": given_})
    assert found == ("Validation AUC, weighted like the test", 0.9, (0.8, 0.95), "so")


def test_the_first_line_of_an_older_run_is_the_figure_that_its_interval_is_of():
    older = {"auc": 0.7, "interval": [0.6, 0.8], "validation_interval": [0.65, 0.75]}
    assert tables.headline(older)[:3] == ("Validation AUC", 0.7, (0.6, 0.8))
    both = {**older, "expected_test_auc": 0.72}
    assert tables.headline(both)[:3] == ("AUC expected on the test", 0.72, (0.6, 0.8))


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=5))
def test_tables_take_any_card(validation):
    for build in (
        tables.auc_rows, tables.other_rows, tables.fold_rows, tables.slice_rows,
        tables.order_rows, tables.threshold_rows, tables.calibration_rows,
    ):  # fmt: skip
        for row in build(validation):
            assert row.value is None or math.isfinite(row.value)
    tables.headline_bar(validation)
    tables.hardest_rows({"validation": validation, "data": validation.get("folds")})


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.dictionaries(st.sampled_from(["fold", "round", "roc_auc", "is_kept"]), ANYTHING))
)
def test_rounds_take_any_card(rounds):
    for row in tables.round_rows({"pseudo_labels": rounds}):
        assert row.value is None or math.isfinite(row.value)


def test_rounds_say_which_model_was_kept_and_how_many_rows_it_labelled():
    labelled = {"pseudo_positives": 30, "pseudo_negatives": 70}
    before, after = tables.round_rows(
        {"pseudo_labels": [
            {"fold": 2, "round": 0, "roc_auc": 0.8, "is_kept": False},
            {"fold": 2, "round": 1, "roc_auc": 0.9, "is_kept": True, **labelled},
        ]}
    )  # fmt: skip
    assert (before.name, before.value, before.note) == ("fold 2, before the first round", 0.8, "")
    assert (after.name, after.value, after.note) == ("fold 2, round 1", 0.9, "kept")
    assert (before.cells["labelled"], after.cells["labelled"]) == (0, 100)


finite = st.floats(-1, 1)


@given(st.lists(st.tuples(finite, st.floats(0, 0.1), st.floats(0, 0.1)), min_size=1))
def test_bars_lie_inside_their_scale_and_hold_their_figure(values):
    rows = [tables.Row("", at, (at - below, at + above)) for at, below, above in values]
    for row in tables.with_bars(rows):
        left, width, at, low, high = row.bar
        assert -0.02 <= left <= at + 0.02
        assert at - 0.02 <= left + width <= 100.02
        assert low + at / 100 * (high - low) == pytest.approx(row.value, abs=2e-4)


def test_all_bars_of_a_table_have_one_scale():
    rows = tables.with_bars([tables.Row("", 0.91), tables.Row("", 0.934, (0.921, 0.945))])
    assert {(round(row.bar.low, 9), round(row.bar.high, 9)) for row in rows} == {(0.91, 0.95)}


def test_rows_without_a_figure_need_no_scale():
    assert tables.with_bars([tables.Row("", None)]) == [tables.Row("", None)]


def test_an_auc_has_its_interval_for_a_test_and_that_of_its_own_rows():
    new = {"auc": 0.9, "test_interval": [0.86, 0.94], "validation_interval": [0.88, 0.92],
           "expected_test_auc": 0.91, "expected_test_interval": [0.85, 0.95]}  # fmt: skip
    rows = [(row.name, row.interval) for row in tables.auc_rows(new)]
    assert rows == [
        ("ROC AUC", (0.86, 0.94)),
        ("expected on the test", (0.85, 0.95)),
        ("ROC AUC, these rows alone", (0.88, 0.92)),
    ]
    assert [row.interval for row in tables.auc_rows({"auc": 0.9})] == [None]


def test_a_slice_tells_its_distance_from_all_rows():
    slices = [
        {"slice": "is_same_bag", "value": "yes", "auc": 0.75, "rows": 2},
        {"slice": "x", "auc": None, "rows": 3},
    ]
    first, second = tables.slice_rows({"auc": 0.9, "slices": slices})
    assert (first.name, first.cells["gap"]) == ("same ids in any order", pytest.approx(-0.15))
    assert second.cells["gap"] is None


def test_all_rows_are_no_slice():
    slices = [{"slice": "fold", "value": "0", "auc": 0.9, "rows": 7}]
    assert tables.slice_rows({"auc": 0.9, "rows": 7, "slices": slices}) == []


def test_features_of_drift_are_ranked_by_their_distance_from_chance():
    features = [{"name": name, "auc": auc} for name, auc in (("a", 0.52), ("b", 0.2), ("c", 0.6))]
    rows = tables.drift_rows({"features": features})
    assert [row.name for row in rows] == ["b", "c", "a"]
    assert [row.bar.width for row in rows] == pytest.approx([60, 20, 4])


def test_a_figure_without_a_place_is_listed_by_its_name():
    rows = tables.other_rows({"my_new_figure": 0.5, "brier": 0.1, "auc": 0.9, "words": "x"})
    assert [(row.name, row.value) for row in rows] == [("Brier score", 0.1), ("my new figure", 0.5)]


def test_figures_of_the_graph_may_be_nested():
    nested = {"closure": {"new_pairs": 3, "names": ["x"]}, "components_by_size": {"1": 2}}
    rows = tables.graph_rows({"largest": 5, **nested})
    assert [(row.name, row.value) for row in rows] == [
        ("rows of the largest", 5),
        ("closure: new pairs", 3),
    ]


@pytest.mark.parametrize(
    ("file", "name"),
    [(0, "a.tsv"), (1, "b.tsv"), (2, "file 2"), (-1, "file -1"), ("c.tsv", "c.tsv"), (None, "")],
)
def test_a_row_knows_its_file_by_a_number(file, name):
    card = {"data": [{"role": "test", "path": "t"}, {"role": "train", "path": "x/a.tsv, b.tsv"}]}
    assert tables.file_name(card, file) == name


def test_nested_values_have_dotted_names():
    assert list(tables.flat_values({"a": {"b": 1, "c": {}}, "d": [2]})) == [("a.b", 1), ("d", [2])]


@pytest.mark.parametrize(
    ("value", "ends"),
    [([0.1, 0.2], (0.1, 0.2)), ((1, 2), (1, 2)), ([None, 1], None), ([math.nan, 1], None),
     ("ab", None), ([1], None), (None, None)],
)  # fmt: skip
def test_an_interval_needs_both_ends(value, ends):
    assert tables.interval(value) == ends
