"""What there is to know of the files of a run before anything trains: ids, folds, drift, figures.

Shapes: B labelled pairs, T rows of the test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from desmatch.data.counts import IdCounter, IdCounts
from desmatch.data.drift import Drift, measure_drift
from desmatch.data.features import row_features
from desmatch.data.graph import QueryGraph, build_graph, number_texts
from desmatch.data.read import RejectedRow, column
from desmatch.data.split import CUT, RANDOM, Folds, assign_folds, hold_out_rows
from desmatch.data.vocabulary import Vocabulary, fit_vocabulary
from desmatch.errors import UserError
from desmatch.inspection import (
    LabelledRows,
    Places,
    RowsToScore,
    data_warnings,
    drift_figures,
    file_figures,
    graph_figures,
)
from desmatch.intake import Sources, count_rows, read_sources
from desmatch.runs import generator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from datasets import Dataset
    from numpy.typing import NDArray

    from desmatch.recipe import Recipe


class Measured(NamedTuple):
    """What there is to know of the files.

    Attributes:
        rows: Labelled rows, with fold, group and weight, and the test's.
        vocabulary: Fitted on all files.
        counts: Of all ids.
        figures: For people and the card.
        rejected: Malformed rows that were left out.
    """

    rows: dict[str, Dataset]
    vocabulary: Vocabulary
    counts: IdCounts
    figures: dict[str, Any]
    rejected: list[RejectedRow]


def measure(
    sources: Sources, recipe: Recipe, *, skip_bad: bool = False, keep: Path | None = None
) -> Measured:
    """Read, check, count, number and split, and return what was found.

    Args:
        sources: The files.
        recipe: Its data part, its seed, and number of folds and random share are used: which
            folds are trained later is of no concern here.
        skip_bad: Leave malformed rows of train and unlabeled out; a malformed row of the test is
            always an error, since each needs a score.
        keep: Folder that gets the rows without labels; none: they are counted alone.

    Raises:
        UserError: Malformed rows, or too few labelled ones to hold a fold or single rows out.
    """
    rows, summaries, rejected = read_sources(sources, recipe.data, skip_bad=skip_bad, keep=keep)
    counter = IdCounter()
    for summary in summaries.values():
        counter.add(summary.counts())
    counts = counter.total()
    vocabulary = fit_vocabulary(counts, recipe.data)
    numbers = number_texts([column(rows[role], side) for role in rows for side in ("a", "b")])
    graph = build_graph(numbers[0], numbers[1])
    labels = np.asarray(column(rows["train"], "label"))
    folds = _split(graph, labels, recipe)
    fold = _hold_out(graph, folds, labels, recipe)
    drift = _drift(rows, vocabulary, counts, generator(recipe.seed, "drift"))
    for name, values in (("fold", fold), ("group", folds.group), ("weight", drift.weights)):
        rows["train"] = rows["train"].add_column(name, values)
    figures = {
        "data": [
            file_figures(role, paths, summaries[role], vocabulary)
            for role, paths in sources.by_role().items()
        ],
        "graph": graph_figures(
            LabelledRows(graph, labels, Places.of(rows["train"], sources.train)),
            RowsToScore(numbers[2], numbers[3], Places.of(rows["test"], [sources.test])),
            folds,
        ),
        "drift": drift_figures(drift, rng=generator(recipe.seed, "drift interval")),
        "vocabulary": {"distinct_ids": len(counts), "kept_ids": len(vocabulary.ids)},
        "rejected_rows": len(rejected),
    }
    figures["warnings"] = data_warnings(figures, recipe)
    return Measured(rows, vocabulary, counts, figures, rejected)


def count_files(
    paths: Sequence[Path], recipe: Recipe, *, skip_bad: bool = False
) -> tuple[dict[str, Any], IdCounts]:
    """Check and count files of pairs without labels alone, of any length.

    Returns:
        The figures that `measure` gives of such files, and how often each id was seen.

    Raises:
        UserError: A file cannot be read, or a row is malformed.
    """
    summary, rejected = count_rows(paths, recipe.data, skip_bad=skip_bad)
    counts = summary.counts()
    vocabulary = fit_vocabulary(counts, recipe.data)
    figures = {
        "data": [file_figures("unlabeled", paths, summary, vocabulary)],
        "vocabulary": {"distinct_ids": len(counts), "kept_ids": len(vocabulary.ids)},
        "rejected_rows": len(rejected),
    }
    return figures, counts


def _split(graph: QueryGraph, labels: NDArray[np.int8], recipe: Recipe) -> Folds:
    if len(np.unique(labels)) < 2:
        raise UserError(f"train: every label is {labels[0]}; a model needs rows of both labels")
    rng = generator(recipe.validation.seed_of_folds(recipe.seed), "folds")
    try:
        return assign_folds(graph, labels, num_folds=recipe.validation.num_folds, rng=rng)
    except ValueError as error:
        raise UserError(
            f"train: {error}; give more rows, or set --validation.num_folds lower"
        ) from None


def _hold_out(
    graph: QueryGraph, folds: Folds, labels: NDArray[np.int8], recipe: Recipe
) -> NDArray[np.int32]:
    """Return the fold of each row, RANDOM where it is held out on its own, after some checks."""
    fold = hold_out_rows(
        folds.fold,
        share=recipe.validation.random_share,
        rng=generator(recipe.validation.seed_of_folds(recipe.seed), "random rows"),
    )
    for held_out in range(recipe.validation.num_folds):
        _require_both_labels(fold, labels, held_out)
    if recipe.validation.random_share:
        for held_out in (CUT, *range(recipe.validation.num_folds)):  # CUT: every fold trains
            _require_both_kinds(graph, fold, labels, held_out)
    return fold


def _require_both_labels(fold: NDArray[np.int32], labels: NDArray[np.int8], held_out: int) -> None:
    """Refuse a fold that has no AUC."""
    found = labels[fold == held_out]
    if len(np.unique(found)) < 2:
        raise UserError(
            f"train: fold {held_out} holds {len(found)} rows and not both labels; give more "
            "rows, or set --validation.num_folds lower"
        )


def _drift(
    rows: Mapping[str, Dataset],
    vocabulary: Vocabulary,
    counts: Mapping[str, int],
    rng: np.random.Generator,
) -> Drift:
    """Compare the labelled rows with the test's."""
    pairs = {role: [column(rows[role], side) for side in ("a", "b")] for role in ("train", "test")}
    labelled, test = (row_features(a, b, vocabulary, counts) for a, b in pairs.values())
    train_a, train_b, test_a, test_b = number_texts([*pairs["train"], *pairs["test"]])
    graph = build_graph(np.concatenate([train_a, test_a]), np.concatenate([train_b, test_b]))
    return measure_drift(labelled, test, graph, rng=rng)


def _require_both_kinds(
    graph: QueryGraph, fold: NDArray[np.int32], labels: NDArray[np.int8], held_out: int
) -> None:
    """Refuse rows held out one by one that cannot stand for a test, before anything trains."""
    trains = (fold != held_out) & (fold >= 0)
    known = np.isin(np.arange(graph.num_texts), np.stack([graph.a[trains], graph.b[trains]]))
    taken = fold == RANDOM
    has_known = known[graph.a[taken]] | known[graph.b[taken]]
    if len(np.unique(labels[taken])) < 2 or len(np.unique(has_known)) < 2:
        raise UserError(
            f"train: {taken.sum()} rows held out at random do not show both labels, or both rows "
            "with and without a known query; set --validation.random_share higher, or to 0"
        )
