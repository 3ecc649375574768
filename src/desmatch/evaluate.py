"""Figures of the held-out rows: what a run may claim, and how sure it is.

Shapes: B held-out rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from desmatch.errors import UserError
from desmatch.metrics.calibration import brier_score_loss, expected_calibration_error, log_loss
from desmatch.metrics.intervals import bootstrap_auc, prediction_interval
from desmatch.metrics.roc import roc_auc
from desmatch.runs import generator

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from desmatch.recipe import Recipe


class Scored(NamedTuple):
    """Held-out rows with their scores.

    Attributes:
        labels: (B,), 0 or 1.
        scores: (B,), by the weights that are kept.
        honest_scores: (B,), by weights that were not chosen on the row itself.
        groups: (B,), components of the query graph.
    """

    labels: NDArray[np.int8]
    scores: NDArray[np.float64]
    honest_scores: NDArray[np.float64]
    groups: NDArray[np.int64]


def read_column(path: Path, name: str) -> NDArray[Any]:
    """Return one column of a parquet file of predictions.

    Raises:
        UserError: The file is missing or broken.
    """
    try:
        return np.asarray(pq.read_table(path, columns=[name]).column(name))
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run `desmatch predict`") from None


def read_scored(path: Path) -> Scored:
    """Read the validation's predictions."""
    return Scored(
        labels=read_column(path, "label"),
        scores=read_column(path, "score"),
        honest_scores=read_column(path, "honest_score"),
        groups=read_column(path, "group"),
    )


class RandomRows(NamedTuple):
    """Rows held out on their own, with scores of weights that were not chosen on them.

    Attributes:
        labels: (B,), 0 or 1.
        scores: (B,).
        groups: (B,), components of the query graph.
        has_known_query: (B,), whether the row shares a text with a row that trained.
        known_share: Share of the test's rows for which this holds.
    """

    labels: NDArray[np.int8]
    scores: NDArray[np.float64]
    groups: NDArray[np.int64]
    has_known_query: NDArray[np.bool_]
    known_share: float


def read_random_rows(path: Path, test: Path) -> RandomRows | None:
    """Read the predictions of the rows held out at random; none where there are none."""
    if not path.is_file():
        return None
    return RandomRows(
        labels=read_column(path, "label"),
        scores=read_column(path, "score"),
        groups=read_column(path, "group"),
        has_known_query=read_column(path, "has_known_query"),
        known_share=float(read_column(test, "has_known_query").mean()),
    )


def expected_test_figures(rows: RandomRows, recipe: Recipe, *, test_size: int) -> dict[str, Any]:
    """Return what the test will show if it was split off row by row.

    Rows with a known query and rows without one count for as much as in the test
    (post-stratification), whatever their share among the rows held out.

    `prepare` has seen to it that the rows show both labels, and both rows with a known query and
    without one.
    """
    known = rows.has_known_query
    share = float(known.mean())
    weights = np.where(known, rows.known_share / share, (1 - rows.known_share) / (1 - share))
    interval = prediction_interval(
        rows.labels,
        rows.scores,
        rows.groups,
        test_size=test_size,
        weights=weights,
        rng=generator(recipe.seed, "random rows' bootstrap"),
        num_samples=recipe.validation.num_bootstraps,
    )
    return {
        "expected_test_auc": roc_auc(rows.labels, rows.scores, weights),
        "interval": [*interval],
        "random_rows": len(known),
        "random_rows_with_known_query": int(known.sum()),
        "test_share_with_known_query": rows.known_share,
    }


def validation_figures(
    scored: Scored, recipe: Recipe, *, test_size: int, random_rows: RandomRows | None = None
) -> dict[str, Any]:
    """Return the card's validation figures.

    `auc` is of the honest scores; `interval` is where the AUC of a test of `test_size` rows will
    lie with 95 % certainty, if that test is drawn like the validation: it holds the sampling
    errors of both. `validation_interval` holds the validation's alone. Where rows were held out at
    random too, `interval` is that of `expected_test_auc`, for a test whose queries are known as
    often as they really are; `auc` stays that of rows with unknown queries alone.
    """
    rng = generator(recipe.seed, "bootstrap")
    num_samples = recipe.validation.num_bootstraps
    arrays = (scored.labels, scored.honest_scores, scored.groups)
    around_test = prediction_interval(
        *arrays, test_size=test_size, rng=rng, num_samples=num_samples
    )
    around_validation = bootstrap_auc(*arrays, rng=rng, num_samples=num_samples)
    return {
        "auc": roc_auc(scored.labels, scored.honest_scores),
        "interval": [*around_test],
        "validation_interval": [*around_validation],
        "auc_of_kept_weights": roc_auc(scored.labels, scored.scores),
        "rows": len(scored.labels),
        "components": len(np.unique(scored.groups)),
        "positives": float(scored.labels.mean()),
        "log_loss": log_loss(scored.labels, scored.honest_scores),
        "brier": brier_score_loss(scored.labels, scored.honest_scores),
        "calibration_error": expected_calibration_error(scored.labels, scored.honest_scores),
        "test_size": test_size,
        **(expected_test_figures(random_rows, recipe, test_size=test_size) if random_rows else {}),
    }


def read_labels(path: Path, *, expected_rows: int) -> NDArray[np.int8]:
    """Read one label a line, in the order of the scores.

    Raises:
        UserError: A line is not 0 or 1, or the count differs.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    if lines and not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if line.strip() not in {"0", "1"}:
            raise UserError(
                f"{path}:{number}: expected 0 or 1, got {line[:40]!r}; one label a line"
            )
    if len(lines) != expected_rows:
        raise UserError(f"{path}: {len(lines)} labels for {expected_rows} scores; "
                        "give the labels of the same rows")  # fmt: skip
    return np.array([int(line) for line in lines], dtype=np.int8)


def figures_on_labels(
    path: Path, test_predictions: Path, groups: NDArray[np.int32], recipe: Recipe
) -> dict[str, Any]:
    """Return the AUC of the test's scores on labels that no stage has read.

    Args:
        path: One label a line, in the order of the test.
        test_predictions: The run's predictions for the test.
        groups: (T,), component of each row of the test.
        recipe: Its seed and its number of bootstrap samples are used.

    Raises:
        UserError: The labels do not fit the scores, or are all alike.
    """
    scores = read_column(test_predictions, "score")
    labels = read_labels(path, expected_rows=len(scores))
    if len(np.unique(labels)) < 2:
        raise UserError(f"{path}: every label is {labels[0]}; an AUC needs both labels")
    rng = generator(recipe.seed, "bootstrap")
    num_samples = recipe.validation.num_bootstraps
    interval = bootstrap_auc(labels, scores, groups, rng=rng, num_samples=num_samples)
    return {"auc": roc_auc(labels, scores), "interval": [*interval], "rows": len(labels)}
