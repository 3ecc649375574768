"""The first stage: files of pairs to one folder that every later stage reads.

Shapes: B labelled pairs, T rows of the test, U rows without labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, load_from_disk
from datasets.utils.logging import disable_progress_bar

from desmatch.data.drift import Drift, measure_drift
from desmatch.data.features import row_features
from desmatch.data.graph import QueryGraph, build_graph, number_texts
from desmatch.data.read import RejectedRow, read_pairs, write_rejected
from desmatch.data.read import column as column
from desmatch.data.split import CUT, RANDOM, Folds, assign_folds, hold_out_rows
from desmatch.data.vocabulary import EncodedPairs, Vocabulary, count_ids, fit_vocabulary
from desmatch.errors import UserError
from desmatch.inspection import (
    REJECTED,
    LabelledRows,
    Places,
    RowsToScore,
    data_warnings,
    drift_figures,
    file_figures,
    graph_figures,
)
from desmatch.runs import generator, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from desmatch.data.faults import Labels
    from desmatch.recipe import Recipe

FIGURES = "figures.json"
ROLES = ("train", "test", "unlabeled")
SUFFIXES = (".tsv", ".tsv.gz", ".jsonl", ".parquet")


class Sources(NamedTuple):
    """The files of a run, by role."""

    train: tuple[Path, ...]
    test: Path
    unlabeled: tuple[Path, ...] = ()

    def by_role(self) -> dict[str, list[Path]]:
        """Role to files, in the order of the columns of every table."""
        return {"train": [*self.train], "test": [self.test], "unlabeled": [*self.unlabeled]}


def find_sources(folder: Path) -> Sources:
    """Find train, test and, if there is one, unlabeled in a folder of contest files.

    Raises:
        UserError: The folder, train or test is missing, or a role has two files.
    """
    if not folder.is_dir():
        raise UserError(f"--data {folder}: no such folder")
    found = {}
    for role in ROLES:
        candidates = (folder / f"{role}{suffix}" for suffix in SUFFIXES)
        found[role] = [path for path in candidates if path.is_file()]
    for role, paths in found.items():
        if len(paths) > 1:
            raise UserError(f"{folder}: both {paths[0].name} and {paths[1].name}; keep one")
        if not paths and role != "unlabeled":
            raise UserError(
                f"{folder}: no {role}.tsv (nor .tsv.gz, .jsonl, .parquet); "
                "put it there, or name files with --train and --test"
            )
    return Sources(tuple(found["train"]), found["test"][0], tuple(found["unlabeled"]))


@dataclass(frozen=True)
class Prepared:
    """The prepared folder, loaded.

    Attributes:
        vocabulary: Fitted on all rows.
        rows: Role to Arrow dataset: a, b, label, file, line; train has fold,
            group and weight too.
        figures: What the card says of the data.
    """

    vocabulary: Vocabulary
    rows: Mapping[str, Dataset]
    figures: Mapping[str, Any]

    def encode(self, role: str) -> EncodedPairs:
        """Encode all rows of a role."""
        return self.vocabulary.encode(column(self.rows[role], "a"), column(self.rows[role], "b"))

    def train_column(self, name: str) -> NDArray[Any]:
        """(B,), a column of the labelled rows: label, fold, group or weight."""
        return np.asarray(column(self.rows["train"], name))

    def row_features(self, role: str) -> dict[str, NDArray[np.float64]]:
        """Name to (rows of role,): what can be said of each pair without a model."""
        a, b = (column(self.rows[role], side) for side in ("a", "b"))
        return row_features(a, b, self.vocabulary, self.id_counts)

    @cached_property
    def id_counts(self) -> dict[str, int]:
        """Frequency of every raw id, rare ones too, over all files."""
        return _count_all(self.rows)

    def graph(self, role: str) -> QueryGraph:
        """Return the query graph of a role's rows."""
        a, b = number_texts([column(self.rows[role], side) for side in ("a", "b")])
        return build_graph(a, b)

    def text_lengths(self, role: str) -> NDArray[np.int64]:
        """(2 * rows,), ids of each text, after truncation."""
        return np.diff(self.encode(role).offsets)

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
                load_from_disk(str(folder / "unlabeled"))
                if has_unlabeled
                else _none_of(rows["test"])
            )
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}: cannot be read ({error}); run `desmatch prepare`") from None
        if missing := {"fold", "group", "weight"} - {*rows["train"].column_names}:
            raise UserError(
                f"{folder}: made by an older version, without {', '.join(sorted(missing))}; "
                "delete it and run the command again"
            )
        return cls(Vocabulary.load(folder), rows, read_json(folder / FIGURES))


def _none_of(rows: Dataset) -> Dataset:
    """Return a table with the columns of `rows` and no row."""
    return Dataset(rows.data.table.slice(0, 0))


def prepare(sources: Sources, recipe: Recipe, folder: Path, *, skip_bad: bool = False) -> None:
    """Read, check, count, number and split, and write the result into `folder`.

    Args:
        sources: The files.
        recipe: Its data part, its seed, and number of folds and random share are used: which
            folds are trained later is of no concern here.
        folder: An empty folder.
        skip_bad: Leave malformed rows of train and unlabeled out and keep them in rejected.tsv;
            a malformed row of the test is always an error, since each needs a score.

    Raises:
        UserError: Malformed rows, or too few labelled ones to hold a fold or single rows out.
    """
    disable_progress_bar()
    rows, rejected = _read(sources, skip_bad=skip_bad)
    counts = _count_all(rows)
    vocabulary = fit_vocabulary(counts, recipe.data)
    numbers = number_texts([column(rows[role], side) for role in ROLES for side in ("a", "b")])
    graph = build_graph(numbers[0], numbers[1])
    labels = np.asarray(column(rows["train"], "label"))
    folds = _split(graph, labels, recipe)
    fold = _hold_out(graph, folds, labels, recipe)
    drift = _drift(rows, vocabulary, counts, generator(recipe.seed, "drift"))
    for name, values in (("fold", fold), ("group", folds.group), ("weight", drift.weights)):
        rows["train"] = rows["train"].add_column(name, values)
    for role in ROLES:
        if len(rows[role]):  # datasets cannot load an empty table again
            rows[role].save_to_disk(str(folder / role))
    if rejected:
        write_rejected(folder / REJECTED, rejected)
    vocabulary.save(folder)
    figures = {
        "data": [
            file_figures(role, paths, rows[role], vocabulary)
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
    write_json(folder / FIGURES, {**figures, "warnings": data_warnings(figures, recipe)})


def _read(sources: Sources, *, skip_bad: bool) -> tuple[dict[str, Dataset], list[RejectedRow]]:
    """Read all roles; a run without unlabelled files gets an empty table."""
    problems: list[str] = []
    rows: dict[str, Dataset] = {}
    rejected: list[RejectedRow] = []
    given = {role: paths for role, paths in sources.by_role().items() if paths}
    for role, paths in given.items():
        labels: Labels = "required" if role == "train" else "absent"
        try:
            read = read_pairs(paths, labels=labels, skip_bad=skip_bad and role != "test")
        except UserError as error:
            problems.append(str(error))
            continue
        rows[role] = read.rows
        rejected += read.rejected
    if problems:
        raise UserError("\n".join(problems))
    for role in ROLES:
        rows.setdefault(role, _none_of(rows["test"]))
    return rows, rejected


def _count_all(rows: Mapping[str, Dataset]) -> dict[str, int]:
    """Return the frequency of every id over both texts of all rows of all roles."""
    total: dict[str, int] = {}
    for role in ROLES:
        for side in ("a", "b"):
            for raw_id, count in count_ids(column(rows[role], side)).items():
                total[raw_id] = total.get(raw_id, 0) + count
    return total


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
