"""The first stage: files of pairs to one folder that every later stage reads.

Shapes: B labelled pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, load_from_disk
from datasets.utils.logging import disable_progress_bar

from desmatch.data.counts import IdCounts
from desmatch.data.features import row_features
from desmatch.data.graph import QueryGraph, build_graph, number_texts
from desmatch.data.read import column, write_rejected
from desmatch.data.split import CUT, RANDOM
from desmatch.data.stored import open_encoded, open_rows, write_encoded
from desmatch.data.vocabulary import EncodedPairs, Vocabulary, thinned
from desmatch.errors import UserError
from desmatch.inspection import REJECTED
from desmatch.intake import ROLES, Sources
from desmatch.runs import read_json, write_json
from desmatch.survey import measure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from desmatch.recipe import Recipe

FIGURES = "figures.json"
ID_COUNTS = "id-counts.parquet"

DRAWN_ROWS = 1 << 20
"""Rows of a role whose lengths are drawn, at most."""


@dataclass(frozen=True)
class Prepared:
    """The prepared folder, loaded.

    Attributes:
        vocabulary: Fitted on all rows.
        rows: Role to Arrow dataset: a, b, label, file, line; train has fold,
            group and weight too. Those without labels stay on the disk.
        figures: What the card says of the data.
        folder: That was loaded.
    """

    vocabulary: Vocabulary
    rows: Mapping[str, Dataset]
    figures: Mapping[str, Any]
    folder: Path

    def encode(self, role: str) -> EncodedPairs:
        """Encode all rows of a role; those without labels are, and lie on the disk.

        Raises:
            UserError: They are not there whole.
        """
        if role == "unlabeled" and len(self.rows[role]):
            try:
                return open_encoded(self.folder / role, num_rows=len(self.rows[role]))
            except (OSError, ValueError) as error:
                raise _unreadable(self.folder, error) from None
        return self.vocabulary.encode(column(self.rows[role], "a"), column(self.rows[role], "b"))

    def train_column(self, name: str) -> NDArray[Any]:
        """(B,), a column of the labelled rows: label, fold, group or weight."""
        return np.asarray(column(self.rows["train"], name))

    def row_features(self, role: str) -> dict[str, NDArray[np.float64]]:
        """Name to (rows of role,): what can be said of each pair without a model."""
        a, b = (column(self.rows[role], side) for side in ("a", "b"))
        return row_features(a, b, self.vocabulary, self.id_counts)

    @cached_property
    def id_counts(self) -> IdCounts:
        """Frequency of every raw id, rare ones too, over all files.

        Raises:
            UserError: They cannot be read.
        """
        try:
            return IdCounts.load(self.folder / ID_COUNTS)
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(self.folder, error) from None

    def graph(self, role: str) -> QueryGraph:
        """Return the query graph of a role's rows."""
        a, b = number_texts([column(self.rows[role], side) for side in ("a", "b")])
        return build_graph(a, b)

    def text_lengths(self, role: str) -> NDArray[np.int64]:
        """(2 * rows,), ids of each text, after truncation; of many rows every k-th is used."""
        return np.diff(thinned(self.encode(role), DRAWN_ROWS).offsets)

    @classmethod
    def load(cls, folder: Path) -> Prepared:
        """Load what `prepare` wrote.

        Raises:
            UserError: The folder is missing or broken, or an older version made it.
        """
        try:
            rows = {role: load_from_disk(str(folder / role)) for role in ("train", "test")}
            has_unlabeled = (folder / "unlabeled").is_dir()
            rows["unlabeled"] = (
                open_rows(folder / "unlabeled") if has_unlabeled else _none_of(rows["test"])
            )
            for each in rows.values():  # Arrow trusts offsets: damaged ones would end the process
                each.data.table.validate(full=True)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise _unreadable(folder, error) from None
        if missing := {"fold", "group", "weight"} - {*rows["train"].column_names}:
            raise UserError(
                f"{folder}: made by an older version, without {', '.join(sorted(missing))}; "
                "delete it and run the command again"
            )
        return cls(Vocabulary.load(folder), rows, read_json(folder / FIGURES), folder)


def _unreadable(folder: Path, error: Exception) -> UserError:
    return UserError(
        f"{folder}: cannot be read ({error}), or an older version made it; delete it and run "
        "`desmatch prepare`"
    )


def _none_of(rows: Dataset) -> Dataset:
    """Return a table with the columns of `rows` and no row."""
    return Dataset(rows.data.table.slice(0, 0))


def prepare(sources: Sources, recipe: Recipe, folder: Path, *, skip_bad: bool = False) -> None:
    """Read, check, count, number and split, and write the result into `folder`.

    Rows without labels pass through block by block and are encoded on the disk: memory is for the
    labelled rows, the test's, and the distinct ids.

    Args:
        sources: The files.
        recipe: As in `measure`.
        folder: An empty folder.
        skip_bad: As in `measure`; what is left out is kept in rejected.tsv.

    Raises:
        UserError: As `measure`.
    """
    disable_progress_bar()
    unlabeled = folder / "unlabeled"
    keep = unlabeled if sources.unlabeled else None
    measured = measure(sources, recipe, skip_bad=skip_bad, keep=keep)
    for role, rows in measured.rows.items():
        rows.save_to_disk(str(folder / role))
    if sources.unlabeled:
        num_rows = measured.figures["data"][ROLES.index("unlabeled")]["rows"]
        write_encoded(unlabeled, measured.vocabulary, num_rows=num_rows)
    if measured.rejected:
        write_rejected(folder / REJECTED, measured.rejected)
    measured.vocabulary.save(folder)
    measured.counts.save(folder / ID_COUNTS)
    write_json(folder / FIGURES, measured.figures)


def training_mask(prepared: Prepared, fold: int) -> NDArray[np.bool_]:
    """(B,), the labelled rows that may train while `fold` is held out."""
    folds = prepared.train_column("fold")
    mask: NDArray[np.bool_] = (folds != fold) & (folds != CUT) & (folds != RANDOM)
    return mask


def touches_fold(prepared: Prepared, role: str, fold: int) -> NDArray[np.bool_]:
    """(rows of role,), whether a row shares a text with a labelled row of `fold`."""
    return _shares_text(prepared, role, prepared.train_column("fold") == fold)


def has_known_query(prepared: Prepared, role: str, folds: Iterable[int]) -> NDArray[np.bool_]:
    """(rows of role,), whether a row shares a text with a row that trains a model.

    Args:
        prepared: The prepared data.
        role: Whose rows.
        folds: The held-out fold of each model.
    """
    trains = np.logical_or.reduce([training_mask(prepared, fold) for fold in folds])
    return _shares_text(prepared, role, trains)


def _shares_text(prepared: Prepared, role: str, labelled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(rows of role,), whether a row shares a text with one of the `labelled` (B,) rows."""
    chosen = prepared.rows["train"].data.table.filter(labelled)
    sides = [*chosen.column("a").chunks, *chosen.column("b").chunks]
    known = pc.unique(pa.chunked_array(sides, pa.string()))
    rows = prepared.rows[role]
    in_a, in_b = (pc.is_in(column(rows, side), value_set=known) for side in ("a", "b"))
    return np.asarray(pc.or_(in_a, in_b))
