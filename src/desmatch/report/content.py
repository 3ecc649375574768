"""What a report is made of, and how it is read from a run's folder.

Whatever an older run lacks is left out.

Shapes: B validation rows, T test rows, C components, N labelled rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from desmatch.errors import UserError
from desmatch.evaluate import read_column
from desmatch.intake import ROLES
from desmatch.prepare import FIGURES, Prepared
from desmatch.report.tables import mapping
from desmatch.runs import CARD, fold_name, read_json, read_json_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

HISTORY = "history.json"
MLM = "mlm"
MODEL_FOLDERS = ("pretrained", "finetuned", "pseudo-labeled")
METRICS = "metrics/metrics.json"
VALIDATION, TEST = "predictions/validation.parquet", "predictions/test.parquet"

_no_values = partial(np.empty, 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportContent:
    """What a report is made of; a part left out leaves its figure out."""

    card: Mapping[str, Any]
    """The run's card.json. Keys, all optional: recipe_name, seed, minutes, recipe (nested),
    versions, warnings [text], data [{role, path, sha256 (text or list), rows, distinct_texts,
    positives, oov_share, mean_length, median_length, p99_length}], graph {name: figure}, drift
    {auc, interval, effective_share, features [{name, auc, labelled_mean, test_mean, importance}]},
    pseudo_labels [{fold, round, roc_auc, is_kept, pseudo_positives, pseudo_negatives}], and
    validation {headline, auc, validation_interval [low, high], interval [low, high] of a test
    of test_size rows, rows, folds, calibration, threshold, order, slices, hardest, and any other
    figure}. Further keys are listed at the end of the page."""
    history: Sequence[Mapping[str, Any]] = ()
    """One entry a logged step: {stage, step, loss?, roc_auc?, fold?}."""
    labels: np.ndarray = field(default_factory=_no_values)
    """(B,), int, 0 or 1: labels of the validation rows."""
    scores: np.ndarray = field(default_factory=_no_values)
    """(B,), float, in [0, 1]: scores of the validation rows."""
    test_scores: np.ndarray = field(default_factory=_no_values)
    """(T,), float, in [0, 1]: scores of the test rows."""
    lengths: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Role of a file -> (texts,), int: ids of each text."""
    component_sizes: np.ndarray = field(default_factory=_no_values)
    """(C,), int: rows of each component of the query graph."""
    weights: np.ndarray = field(default_factory=_no_values)
    """(N,), float, mean 1: what each labelled row counts for when it stands for the test."""


def read_content(run: Path) -> ReportContent:
    """Read what the report of a run shows.

    Args:
        run: Its folder; the card and the predictions are needed, all else may be missing.

    Raises:
        UserError: The folder has no card, or a file is broken.
    """
    card = read_card(run)
    return ReportContent(
        card=card,
        history=list(_read_histories(run, card)),
        labels=read_column(run / VALIDATION, "label"),
        scores=read_column(run / VALIDATION, "honest_score"),
        test_scores=read_column(run / TEST, "score"),
        **_read_prepared(run / "prepared"),
    )


def read_card(run: Path) -> dict[str, Any]:
    """Read a run's card.

    Raises:
        UserError: There is none, or it is older than the figures it signs.
    """
    if not (run / CARD).is_file():
        raise UserError(
            f"{run}: no finished run (no {CARD}); finish it with `desmatch run` or "
            f"`desmatch submit {run}`"
        )
    card = read_json_object(run / CARD)
    if (run / METRICS).is_file() and read_json(run / METRICS) != card.get("validation"):
        raise UserError(
            f"{run}: its card is older than its figures; sign them with `desmatch submit {run}`"
        )
    return card


def has_column(path: Path, name: str) -> bool:
    """Whether a parquet file is there and has a column."""
    return path.is_file() and name in pq.read_schema(path).names


def _read_histories(run: Path, card: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the logged steps of all stages of all folds; older runs have no fold's folder."""
    folders = {fold: run / fold_name(fold) for fold in _trained_folds(card)}
    folders = {fold: folder for fold, folder in folders.items() if folder.is_dir()}
    shared = run / MLM / HISTORY
    if has_mlm_stage(card) and shared.is_file():
        yield from ({**line, "stage": MLM} for line in read_json(shared))
    for stage in MODEL_FOLDERS:
        for fold, folder in (folders or {0: run}).items():
            path = folder / stage / HISTORY
            for line in read_json(path) if path.is_file() else ():
                yield {**line, "stage": stage, **({"fold": fold} if len(folders) > 1 else {})}


def has_mlm_stage(card: Mapping[str, Any]) -> bool:
    """Whether the run has a stage of masked tokens alone, which all folds share."""
    return bool(mapping(mapping(card.get("recipe")).get("mlm")).get("num_train_epochs"))


def _trained_folds(card: Mapping[str, Any]) -> list[int]:
    """Return the folds that have a model of their own; another recipe may have left more."""
    validation = mapping(mapping(card.get("recipe")).get("validation"))
    if validation.get("folds") == "all":
        return list(range(int(validation["num_folds"])))
    return [int(validation.get("fold") or 0)]


def _read_prepared(folder: Path) -> dict[str, Any]:
    if not (folder / FIGURES).is_file():
        return {}
    prepared = Prepared.load(folder)
    return {
        "lengths": {role: prepared.text_lengths(role) for role in ROLES},
        "component_sizes": np.bincount(prepared.graph("train").pair_component),
        "weights": prepared.train_column("weight"),
    }
