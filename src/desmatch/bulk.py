"""Scores of a file of any length, chunk by chunk: memory depends on the chunk, not on the file.

A chunk that is scored is kept beside the output, so that an interrupted prediction goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from desmatch.data.read import count_pairs, read_tables
from desmatch.data.vocabulary import VOCABULARY
from desmatch.disk import refuse_pipe
from desmatch.errors import UserError, require, require_installed
from desmatch.matcher import PairMatcher
from desmatch.members import COMBINATION
from desmatch.mends import require_whole
from desmatch.parts import Parts, cut
from desmatch.predict import answers_for_texts, evidence_of_labels
from desmatch.runs import STAGE, atomic_write, file_digest, value_digest
from desmatch.submit import refuse_scores, write_scores
from desmatch.train.machine import keep_freed_memory, use_machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from desmatch.ensemble.predictions import Predictions
    from desmatch.stages import Run

CHUNK_ROWS = 4096
"""Rows that are scored and kept at a time."""

GROUP_ROWS = 1 << 16
"""Rows of a row group of a Parquet output."""

MODEL_FILES = ("config.json", "model.safetensors", VOCABULARY)
"""What decides the scores of a model."""

COLUMNS = ("row", "score", "logit_forward", "logit_backward")
"""Of a Parquet output; rows are numbered from 0."""


BulkPrecision = Literal["fp32", "bf16", "int8"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Manner:
    """How a file is scored."""

    precision: BulkPrecision = "fp32"
    """Of matrix products; int8 is the run's graph on ONNX Runtime, exported once."""

    chunk_rows: int = CHUNK_ROWS
    """Rows that are scored and kept at a time."""

    def __post_init__(self) -> None:
        require(self.chunk_rows > 0, "chunk_rows", self.chunk_rows, "1 or more")
        known = self.precision in get_args(BulkPrecision)
        require(known, "precision", self.precision, "fp32, bf16 or int8")


def predict_file(run: Run, test: Path, out: Path, manner: Manner | None = None) -> int:
    """Write the scores of the pairs of any file, as a submission has them; return their number.

    The file is checked as a whole before a row is scored. Parts lie in a hidden folder beside
    `out` until all are there; with `run.may_resume` those of an interrupted prediction are used,
    and the output is to the byte what it would have been.

    Args:
        run: Finished; its models are loaded once. `predict.closure` adds what labelled pairs say.
        test: Text, gzip, .jsonl or .parquet.
        out: One probability a line, or, ending in .parquet, `COLUMNS`.
        manner: Precision and rows of a chunk, or the usual ones.

    Raises:
        UserError: A file or a model cannot be read, a row is malformed, the run's rule scores its
            test alone, or parts are there that cannot be gone on with.
    """
    manner = manner or Manner()
    _refuse_places(test, out)
    products = "fp32" if manner.precision == "int8" else manner.precision
    use_machine(replace(run.recipe.machine, precision=products))
    keep_freed_memory()
    num_rows = count_pairs(test, labels="optional")
    scorer = Scorer(run, manner.precision)
    parts = Parts(out, _job(run, test, manner), num_rows, manner.chunk_rows)
    parts.begin(may_resume=run.may_resume)
    _make_parts(scorer, test, parts)
    _write_whole(parts)
    parts.drop()
    return num_rows


class Scorer:
    """The models of a run, loaded once, and what its labelled pairs say.

    Args:
        run: Finished.
        precision: Of matrix products.

    Raises:
        UserError: A model cannot be read, or the run's rule scores its test alone.
    """

    def __init__(self, run: Run, precision: BulkPrecision = "fp32") -> None:
        in_int8 = precision == "int8"
        self.score_texts = _in_integers(run) if in_int8 else _in_floats(run, precision)
        self.recipe = run.recipe
        if run.recipe.predict.closure:
            self.prepared = run.prepared
            self.evidence = evidence_of_labels(self.prepared, run.recipe)

    def score(self, a: pa.ChunkedArray, b: pa.ChunkedArray) -> Predictions:
        """Return what the run says of pairs; it does not depend on how a file is cut.

        Args:
            a: (B,), texts, ids separated by single spaces.
            b: (B,), the second texts.
        """
        return self.score_texts(a, b, shift=self._answers(a, b))

    def _answers(self, a: pa.ChunkedArray, b: pa.ChunkedArray) -> NDArray[np.float64] | float:
        if not self.recipe.predict.closure:
            return 0.0
        return answers_for_texts(self.prepared, self.recipe, a, b, evidence=self.evidence)


def _in_floats(run: Run, precision: BulkPrecision) -> Callable[..., Predictions]:
    """Return what the models of a run say of texts, by torch."""
    require_whole(run.folder)
    return partial(PairMatcher.of_run(run).score_texts, in_bf16=precision == "bf16")


def _in_integers(run: Run) -> Callable[..., Predictions]:
    """Return what the models of a run say of texts, by ONNX Runtime, on as many threads."""
    require_installed("onnx", "onnx", "onnxruntime", "onnxscript")
    from desmatch.deploy import exported
    from desmatch.serve.session import ServedModel

    folder = exported(run, precision="int8")
    return ServedModel.load(folder, num_threads=torch.get_num_threads()).score


def _refuse_places(test: Path, out: Path) -> None:
    """Refuse an input that cannot be read twice, and an output that would hide it or cannot be."""
    refuse_pipe(test)
    if out.is_dir():
        raise UserError(f"{out}: is a folder; name the file of scores to write")
    if out.exists() and test.exists() and out.samefile(test):
        raise UserError(f"{out}: is the file of pairs itself; name another file with --out")


def _job(run: Run, test: Path, manner: Manner) -> dict[str, Any]:
    """Return all that decides the scores of a file, and into which parts they are cut."""
    return {
        "models": _models_digest(run),
        "input": file_digest(test),
        "precision": manner.precision,
        "chunk rows": manner.chunk_rows,
    }


def _models_digest(run: Run) -> str:
    """Return the digest of the models of a run, their combination and what else it adds."""
    runs = run.members.values() if run.members else (run,)
    folders = [folder for each in runs for folder in each.last_models]
    files = [folder / name for folder in folders for name in MODEL_FILES]
    if run.members:
        files.append(run.folder / "predictions" / COMBINATION)
    closure = run.recipe.predict.closure
    if closure:
        files.append(run.folder / "prepared" / STAGE)
    return value_digest([closure, run.recipe.seed, *map(file_digest, files)])


def _make_parts(scorer: Scorer, test: Path, parts: Parts) -> None:
    """Score the chunks whose parts are not there yet.

    Raises:
        UserError: The file is not the one that was checked, or a score is no probability.
    """
    num_rows = 0
    tables = cut(read_tables(test, labels="optional"), parts.part_rows)
    with tqdm(total=parts.num_rows, desc=f"scoring {test.name}", unit="pair", leave=False) as bar:
        for number, rows in enumerate(tables):
            if not parts.has(number):
                said = scorer.score(rows["a"], rows["b"])
                refuse_scores(parts.out, said.scores, first_row=num_rows)
                parts.write(number, _columns(said, first_row=num_rows))
            num_rows += len(rows)
            bar.update(len(rows))
    if num_rows != parts.num_rows:
        raise UserError(
            f"{test}: had {parts.num_rows} rows when it was checked, {num_rows} when it was "
            "scored; leave the file as it is and predict it again"
        )


def _columns(said: Predictions, *, first_row: int) -> pa.Table:
    """Return the columns of a part."""
    rows = np.arange(first_row, first_row + len(said.scores))
    return pa.table([rows, said.scores, said.forward, said.backward], names=[*COLUMNS])


def _write_whole(parts: Parts) -> None:
    """Write the output from its parts, one or a row group of them held at a time."""
    if parts.out.suffix.lower() != ".parquet":
        write_scores(parts.out, (np.asarray(part["score"]) for part in parts.read()))
        return
    schema = pa.schema([("row", pa.int64()), *((name, pa.float64()) for name in COLUMNS[1:])])
    with atomic_write(parts.out) as partial, pq.ParquetWriter(partial, schema) as writer:
        for rows in cut(parts.read(), GROUP_ROWS):
            writer.write_table(rows)
