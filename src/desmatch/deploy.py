"""A finished run as a folder that `desmatch serve` opens: graphs, vocabularies and a rule.

Shapes: B pairs, F models of one vocabulary.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import expit

from desmatch.data.read import column
from desmatch.data.vocabulary import Vocabulary
from desmatch.ensemble.predictions import COLUMNS
from desmatch.ensemble.rules import rule_from_json
from desmatch.errors import UserError
from desmatch.evaluate import read_column
from desmatch.members import COMBINATION
from desmatch.metrics.roc import roc_auc
from desmatch.model.checkpoints import load_model
from desmatch.model.graph import write_graphs, write_one_graph
from desmatch.runs import VALIDATION, atomic_folder, read_json, require_new, revision, write_json
from desmatch.seals import seal
from desmatch.serve.nearest import ROWS, distinct_rows
from desmatch.serve.quantize import quantize
from desmatch.serve.session import (
    MANIFEST,
    MemberSession,
    SavedMember,
    padded_rows,
    read_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from desmatch.serve.quantize import Inputs, Precision
    from desmatch.stages import Run

Graphs = Literal["one", "several"]
"""All models of a vocabulary in one graph, or a graph for each."""

PARITY_ROWS = 1000
"""Held-out rows that a graph is compared on, if there are as many."""

CALIBRATION_ROWS = 256
"""Labelled rows, their labels aside, that the scales of int8 are found on."""


class Form(NamedTuple):
    """How models are written.

    Attributes:
        precision: Of the weights; with int8 of the products with them too.
        graphs: How many there are for the models of one vocabulary.
    """

    precision: Precision = "fp32"
    graphs: Graphs = "several"


def exported(run: Run, *, precision: Precision = "fp32") -> Path:
    """Return where a finished run is exported to in its own folder; once, until it changes.

    Raises:
        UserError: As `export_onnx`.
    """
    folder = run.folder / ("serving" if precision == "fp32" else f"serving-{precision}")
    if folder.is_dir():
        if _is_export_of(folder, run):
            return folder
        shutil.rmtree(folder)
    run.say(f"export: {folder}")
    export_onnx(run, folder, precision=precision)
    return folder


def _is_export_of(folder: Path, run: Run) -> bool:
    """Whether a folder is a whole export of a run as it is now."""
    try:
        kept = read_manifest(folder)
    except UserError:
        return False
    return bool(kept.get("predictions") == run.digest("predictions"))


def export_onnx(
    run: Run,
    out: Path,
    *,
    precision: Precision = "fp32",
    graphs: Graphs = "several",
    with_rows: bool = False,
) -> dict[str, Any]:
    """Write a finished run, ensembles too, as a folder that `desmatch serve` opens without torch.

    Each graph is compared with the run's own logits of held-out rows, each row by the model that
    did without its fold.

    Args:
        run: With its predictions.
        out: A folder that is not there yet.
        precision: Of the weights; with int8 of the products with them too, whose scales are found
            on labelled rows.
        graphs: How many there are for the models of one vocabulary.
        with_rows: Whether the labelled pairs go along, for the service to show the nearest of.

    Returns:
        What serving.json holds.

    Raises:
        UserError: `out` is there, the run is not finished, or its rule scores its test alone.
    """
    require_new(out)
    rule = _rule(run)
    members = run.members or {"model": run}
    with atomic_folder(out) as partial:
        saved = {
            name: _export_member(member, partial / name, Form(precision, graphs))
            for name, member in members.items()
        }
        manifest = {
            "precision": precision,
            "members": {name: each.to_json() for name, (each, _) in saved.items()},
            "rule": rule,
            "rows": _write_rows(run, partial / ROWS) if with_rows else None,
            "closure": run.recipe.predict.closure,
            "parity": {name: parity for name, (_, parity) in saved.items()},
            "run": run.folder.resolve().name,
            "predictions": run.digest("predictions"),
            "revision": revision(),
            **seal(partial),
        }
        write_json(partial / MANIFEST, manifest)
    return manifest


def _write_rows(run: Run, path: Path) -> int:
    """Write the distinct labelled pairs of a run; return how many there are."""
    train = run.prepared.rows["train"]
    rows = distinct_rows(pa.table({name: column(train, name) for name in ("a", "b", "label")}))
    pq.write_table(rows, path)
    return len(rows)


def _rule(run: Run) -> dict[str, Any] | None:
    """Return an ensemble's rule as it is kept, once it is known that it scores single pairs."""
    if not run.members:
        return None
    kept: dict[str, Any] = read_json(run.folder / "predictions" / COMBINATION)
    rule_from_json(kept, run=str(run.folder))
    return kept


def _export_member(run: Run, folder: Path, form: Form) -> tuple[SavedMember, dict[str, float]]:
    """Write the graphs and the vocabulary of the models of a run; return them and the parity."""
    folder.mkdir()
    models = [load_model(path).cpu() for path in run.last_models]
    vocabulary = Vocabulary.load(run.last_models[0])
    vocabulary.save(folder)
    names = [f"{number}.onnx" for number in range(1 if form.graphs == "one" else len(models))]
    with TemporaryDirectory() as scratch:
        paths = [Path(scratch) / name for name in names]
        if form.graphs == "one":
            write_one_graph(models, paths[0])
        else:
            write_graphs(models, paths)
        for path in paths:
            calibration = _calibration(run, vocabulary) if form.precision == "int8" else ()
            quantize(path, folder / path.name, precision=form.precision, calibration=calibration)
    saved = SavedMember(graphs=tuple(names), num_models=len(models))
    return saved, _parity(run, MemberSession.load(folder, saved))


def _calibration(run: Run, vocabulary: Vocabulary) -> Iterator[Inputs]:
    """Yield pairs of labelled rows, each alone: none that parity looks at, if there are others."""
    is_held_out = np.isin(run.prepared.train_column("fold"), run.recipe.validation.trained_folds)
    rows = np.flatnonzero(is_held_out == is_held_out.all())
    rows = rows[:: -(-len(rows) // CALIBRATION_ROWS)]
    train = run.prepared.rows["train"]
    pairs = vocabulary.encode(*(column(train, side).take(rows) for side in ("a", "b")))
    for at in range(len(rows)):
        yield padded_rows(pairs, np.array([at]), np.array([at % 2 == 1]))


def _parity(run: Run, session: MemberSession) -> dict[str, float]:
    """Return how far a graph is from the run, on held-out rows: of probability, and of AUC."""
    path = run.folder / "predictions" / VALIDATION
    row, fold, labels = (read_column(path, name) for name in ("row", "fold", "label"))
    theirs = np.stack([read_column(path, name) for name in COLUMNS[:2]])  # (2, B)
    known = np.flatnonzero(np.isin(fold, run.recipe.validation.trained_folds))
    chosen = known[:: -(-len(known) // PARITY_ROWS)]
    train = run.prepared.rows["train"]
    a, b = (column(train, side).take(row[chosen]).to_pylist() for side in ("a", "b"))
    model = np.searchsorted(run.recipe.validation.trained_folds, fold[chosen])
    ours = np.concatenate(
        [_of_model(session, a[at], b[at], model[at]) for at in _slices(len(chosen))], axis=1
    )
    probs, expected = (expit(logits).mean(axis=0) for logits in (ours, theirs[:, chosen]))
    labels = labels[chosen]
    return {
        "rows": len(chosen),
        "largest_difference_of_probability": float(np.abs(probs - expected).max()),
        "roc_auc": roc_auc(labels, probs),
        "difference_of_roc_auc": roc_auc(labels, probs) - roc_auc(labels, expected),
    }


def _slices(num_rows: int, size: int = 64) -> Iterator[slice]:
    return (slice(at, at + size) for at in range(0, num_rows, size))


def _of_model(
    session: MemberSession, a: Sequence[str], b: Sequence[str], model: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return (2, B), the logits of both orders by the model of each row."""
    logits = session.logits(session.vocabulary.encode(a, b))  # (2, F, B)
    return logits[:, model, np.arange(len(model))]
