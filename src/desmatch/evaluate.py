"""Figures of the held-out rows: what a run may claim, how sure it is, and where it is weak.

Shapes: B held-out rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import expit

from desmatch.claim import RandomRows, expected_test_figures, headline
from desmatch.disk import refuse_pipe
from desmatch.errors import UserError
from desmatch.hardest import hardest_rows
from desmatch.metrics.calibration import brier_score_loss, expected_calibration_error, log_loss
from desmatch.metrics.cross_fit import can_cross_fit, halve
from desmatch.metrics.intervals import bootstrap_auc, effective_rows, prediction_interval
from desmatch.metrics.recalibration import calibration_figures
from desmatch.metrics.roc import pr_auc, roc_auc
from desmatch.metrics.slices import quantile_slices, slice_figures, value_slices
from desmatch.metrics.threshold import FIGURES, cross_fitted_decision
from desmatch.runs import RANDOM_ROWS, TEST, VALIDATION, generator

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from desmatch.metrics.slices import RowSlice
    from desmatch.prepare import Prepared
    from desmatch.recipe import Recipe

SLICED = ("length", "overlap", "oov_share", "rarest_count")
"""Features whose quantiles part the rows."""


class Scored(NamedTuple):
    """Held-out rows with their scores.

    Attributes:
        row: (B,), place among the labelled rows.
        fold: (B,), the fold a row was held out with.
        labels: (B,), 0 or 1.
        groups: (B,), components of the query graph.
        weights: (B,), density of the test over that of the labelled rows, mean about 1.
        forward: (B,), logit by the weights that are kept, `a` before `b`.
        backward: (B,), the same, `b` before `a`.
        scores: (B,), by the weights that are kept, the mean of both orders.
        honest_scores: (B,), by weights that were not chosen on the row itself.
    """

    row: NDArray[np.int64]
    fold: NDArray[np.int32]
    labels: NDArray[np.int8]
    groups: NDArray[np.int64]
    weights: NDArray[np.float64]
    forward: NDArray[np.float64]
    backward: NDArray[np.float64]
    scores: NDArray[np.float64]
    honest_scores: NDArray[np.float64]


COLUMNS = ("row", "fold", "label", "group", "weight", "logit_forward", "logit_backward", "score",
           "honest_score")  # fmt: skip
"""The columns of `Scored`, in its order."""


def read_column(path: Path, name: str) -> NDArray[Any]:
    """Return one column of a parquet file of predictions.

    Raises:
        UserError: The file is missing or broken.
    """
    try:
        if name not in pq.read_schema(path).names:
            raise UserError(f"{path}: no column {name!r}, so it was made by another version; run "
                            "`desmatch predict` on its run again")  # fmt: skip
        return np.asarray(pq.read_table(path, columns=[name]).column(name))
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: cannot be read ({error}); run `desmatch predict`") from None


def read_scored(path: Path) -> Scored:
    """Read the validation's predictions.

    Raises:
        UserError: The file is missing, broken, or of an older version.
    """
    return Scored(*(read_column(path, name) for name in COLUMNS))


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
        weights=read_column(path, "weight"),
    )


def evaluate_run(prepared: Prepared, recipe: Recipe, predictions: Path) -> dict[str, Any]:
    """Return all figures of a run's predictions: the claim, the slices and the hardest rows.

    Args:
        prepared: The data the predictions are of.
        recipe: Its seed and its number of bootstrap samples are used.
        predictions: The folder of the predictions.

    Raises:
        UserError: A file is missing or broken.
    """
    scored = read_scored(predictions / VALIDATION)
    random_rows = read_random_rows(predictions / RANDOM_ROWS, predictions / TEST)
    features = prepared.row_features("train")
    figures = validation_figures(
        scored,
        recipe,
        test_size=len(prepared.rows["test"]),
        drift=prepared.figures["drift"],
        random_rows=random_rows,
    )
    of_rows = {name: values[scored.row] for name, values in features.items()}
    return {
        **figures,
        "slices": sliced_figures(scored, of_rows, recipe, random_rows=random_rows),
        "order": order_figures(scored),
        "hardest": hardest_rows(prepared, scored.row, scored.fold, scored.honest_scores),
    }


def validation_figures(
    scored: Scored,
    recipe: Recipe,
    *,
    test_size: int,
    drift: Mapping[str, Any],
    random_rows: RandomRows | None = None,
) -> dict[str, Any]:
    """Return what is measured on the held-out rows as a whole, and what it claims of the test.

    `auc` is of the honest scores, `weighted_auc` of the same with rows like the test's counting for
    more, and `expected_test_auc` of the rows held out one by one, beside them lone rows held out by
    components where one model scored both. Each has the interval in which
    the AUC of a test of `test_size` rows will lie with 95 % certainty if it is the right one;
    `headline` says which one is, and `interval` is the headline's. `validation_interval` holds the
    sampling error of the validation alone.

    Args:
        scored: Rows held out by components.
        recipe: Its seed and its number of bootstrap samples are used.
        test_size: Rows of the test.
        drift: `auc` and `interval` of telling test and labelled rows apart.
        random_rows: Rows held out one by one, where there are some.
    """
    figures = auc_figures(scored, recipe, test_size=test_size)
    if random_rows is not None:
        rows = random_rows
        if len(np.unique(scored.fold)) == 1:  # one model scored both kinds of rows
            lone = lone_rows(scored.groups, random_rows.groups)
            rows = random_rows.with_unknown(
                scored.labels[lone],
                scored.honest_scores[lone],
                scored.groups[lone],
                scored.weights[lone],
            )
        figures |= expected_test_figures(rows, recipe, drift, test_size=test_size)
        figures["random_rows"] = len(random_rows.labels)
    recommended = headline(figures, drift)
    labels, probs = scored.labels, scored.honest_scores
    return {
        "headline": recommended,
        **figures,
        "interval": recommended["interval"],
        "auc_of_kept_weights": roc_auc(labels, scored.scores),
        "pr_auc": pr_auc(labels, probs),
        "rows": len(labels),
        "components": len(np.unique(scored.groups)),
        "positives": float(labels.mean()),
        "log_loss": log_loss(labels, probs),
        "brier": brier_score_loss(labels, probs),
        "calibration_error": expected_calibration_error(labels, probs),
        "test_size": test_size,
        "folds": fold_figures(scored),
        **cross_fitted_figures(scored, recipe),
    }


def lone_rows(groups: NDArray[np.int64], random_groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which rows of a fold share no text with any other labelled row.

    These are what rows without a known query are in a test that was drawn row by row: of a larger
    component such a draw would have left a part among the labelled rows.

    Args:
        groups: (B,), components of the rows held out by components, each whole.
        random_groups: (R,), of the rows held out one by one.
    """
    names, counts = np.unique(np.concatenate([groups, random_groups]), return_counts=True)
    is_lone: NDArray[np.bool_] = counts[np.searchsorted(names, groups)] == 1
    return is_lone


def auc_figures(scored: Scored, recipe: Recipe, *, test_size: int) -> dict[str, Any]:
    """Return plain and weighted AUC with their intervals."""
    rng = generator(recipe.seed, "bootstrap")
    num_samples = recipe.validation.num_bootstraps
    arrays = (scored.labels, scored.honest_scores, scored.groups)
    of_test, weighted = (
        prediction_interval(
            *arrays, test_size=test_size, weights=weights, rng=rng, num_samples=num_samples
        )
        for weights in (None, scored.weights)
    )
    of_validation = bootstrap_auc(*arrays, rng=rng, num_samples=num_samples)
    return {
        "auc": roc_auc(*arrays[:2]),
        "test_interval": [*of_test],
        "validation_interval": [*of_validation],
        "weighted_auc": roc_auc(*arrays[:2], scored.weights),
        "weighted_interval": [*weighted],
        "effective_rows": effective_rows(scored.weights),
    }


def fold_figures(scored: Scored) -> list[dict[str, Any]]:
    """Return rows and AUC of each fold; no AUC where a label is missing."""
    folds = []
    for fold in np.unique(scored.fold):
        labels, scores = (
            each[scored.fold == fold] for each in (scored.labels, scored.honest_scores)
        )
        auc = roc_auc(labels, scores) if len(np.unique(labels)) == 2 else None
        folds.append({"fold": int(fold), "rows": len(labels), "auc": auc})
    return folds


def cross_fitted_figures(scored: Scored, recipe: Recipe) -> dict[str, Any]:
    """Return thresholds and calibration, fitted on other rows than they are judged on.

    Parts are the folds, or halves of the components where one fold is held out; both figures are
    none where the rows outside a part lack a label.
    """
    labels, scores = scored.labels, scored.honest_scores
    parts: NDArray[Any] = scored.fold
    if len(np.unique(parts)) < 2:
        parts = halve(scored.groups, rng=generator(recipe.seed, "halves"))
    if not can_cross_fit(labels, parts):
        return {"threshold": None, "calibration": None}
    decisions = {name: cross_fitted_decision(labels, scores, parts, name) for name in FIGURES}
    return {
        "threshold": {name: decision._asdict() for name, decision in decisions.items()},
        "calibration": calibration_figures(labels, scores, parts),
    }


def order_figures(scored: Scored) -> dict[str, float]:
    """Return how much it matters which text of a pair is read first, by the kept weights."""
    forward, backward = expit(scored.forward), expit(scored.backward)
    return {
        "mean_difference": float(np.abs(forward - backward).mean()),
        "decision_flips": float(((forward >= 0.5) != (backward >= 0.5)).mean()),
        "auc_forward": roc_auc(scored.labels, forward),
        "auc_backward": roc_auc(scored.labels, backward),
        "auc_mean": roc_auc(scored.labels, scored.scores),
    }


def sliced_figures(
    scored: Scored,
    features: Mapping[str, NDArray[np.float64]],
    recipe: Recipe,
    *,
    random_rows: RandomRows | None = None,
) -> list[dict[str, Any]]:
    """Return the figures of parts of the held-out rows, by what they are like.

    Args:
        scored: Rows held out by components.
        features: Name to (B,), of the same rows.
        recipe: Its seed is used.
        random_rows: Parted by whether a row has a known query.
    """
    rng = generator(recipe.seed, "slices")
    slices: list[RowSlice] = []
    for name in SLICED:
        slices += quantile_slices(name, features[name])
    slices += value_slices("is_same_bag", features["is_same_bag"] == 1)
    difference = np.abs(expit(scored.forward) - expit(scored.backward))
    slices += quantile_slices("order_difference", difference)
    slices += value_slices("fold", scored.fold)
    found = slice_figures(slices, scored.labels, scored.honest_scores, scored.groups, rng=rng)
    if random_rows is not None:
        known = value_slices("has_known_query", random_rows.has_known_query)
        found += slice_figures(
            known, random_rows.labels, random_rows.scores, random_rows.groups, rng=rng
        )
    return found


def read_labels(path: Path, *, expected_rows: int) -> NDArray[np.int8]:
    """Read one label a line, in the order of the scores.

    Raises:
        UserError: A line is not 0 or 1, or the count differs.
    """
    refuse_pipe(path)
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
