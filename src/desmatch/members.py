"""The members of an ensemble, whole runs of their own: their predictions into one, their standings.

Rules are fitted on the honest scores of the held-out rows, which no checkpoint was chosen by, and
applied to the scores of the kept weights.

Shapes: M members, B held-out rows, F features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import expit

from desmatch.data.read import column
from desmatch.ensemble.combine import Views, combine_out_of_fold
from desmatch.ensemble.lexical import count_texts
from desmatch.ensemble.predictions import COLUMNS, Predictions, combine_predictions, score_logits
from desmatch.ensemble.rules import GREEDY, RULES, rule_from_json, rule_to_json
from desmatch.ensemble.selection import selection_gain
from desmatch.ensemble.stacking import stacking_features
from desmatch.ensemble.standings import OutOfFold, deal_folds, standings
from desmatch.errors import UserError
from desmatch.evaluate import read_column, read_scored
from desmatch.intake import ROLES
from desmatch.runs import (
    RANDOM_ROWS,
    TEST,
    VALIDATION,
    atomic_write,
    generator,
    read_json,
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from desmatch.ensemble.combine import Fitted, Floats
    from desmatch.evaluate import Scored
    from desmatch.prepare import Prepared
    from desmatch.recipe import Recipe

COMBINATION = "combination.json"
MOST_PARTS = 5
"""Parts that the rows of a single fold are dealt to for cross-fitting."""


class HeldOut(NamedTuple):
    """The rows that all members hold out.

    Attributes:
        rows: What is known of them, as the first member has it.
        members: What each member says by the weights that it keeps.
        oof: The logits of each member's honest scores, and the parts that rules are fitted
            without: the folds, or parts dealt of a single fold's components.
    """

    rows: Scored
    members: list[Predictions]
    oof: OutOfFold


def combine_run(
    prepared: Prepared,
    recipe: Recipe,
    members: Mapping[str, Path],
    folder: Path,
    *,
    shifts: Mapping[str, Floats],
) -> None:
    """Write the predictions of an ensemble, named and laid out like those of any run.

    A row's `honest_score` is by a rule that was fitted without the row's part. combination.json
    keeps the rule that is fitted on all parts, which gives all other scores.

    Args:
        prepared: The ensemble's own; its weights of rows are used.
        recipe: Its seed and what it combines by are used.
        members: Name to the folder of the predictions.
        folder: An empty folder.
        shifts: What is added to the combined logits of the test, and of rows held out one by one,
            by the name of their file.

    Raises:
        UserError: Predictions cannot be read, are of other rows, or show too little to fit on.
    """
    held_out = read_held_out(members, recipe)
    rows, oof = held_out.rows, held_out.oof
    features = _Features(prepared) if recipe.ensemble.combine == "stacking" else None
    rule = RULES[recipe.ensemble.combine]
    views = Views(oof.views.logits, features.of("train", rows.row) if features else None)
    fitted = rule.fit(views, oof.labels)
    honest = expit(combine_out_of_fold(rule, views, oof.labels, oof.folds).logits)
    known = {"row": rows.row, "fold": rows.fold, "label": rows.labels, "group": rows.groups,
             "weight": prepared.train_column("weight")[rows.row]}  # fmt: skip
    combined = combine_predictions(fitted, held_out.members, views.features)
    _write(folder / VALIDATION, known, combined, honest_score=honest)
    for name, known, combined in _combine_others(members, fitted, features):
        _write(folder / name, known, combined.shifted(shifts[name]))
    kept = rule_to_json(recipe.ensemble.combine, [*members], fitted)
    write_json(folder / COMBINATION, kept)


def _combine_others(
    members: Mapping[str, Path], rule: Fitted, features: _Features | None
) -> Iterator[tuple[str, dict[str, Any], Predictions]]:
    """Yield file, known columns and what is said of the test and of rows held out one by one."""
    for name, role in ((TEST, "test"), (RANDOM_ROWS, "train")):
        paths = [predictions / name for predictions in members.values()]
        if not paths[0].is_file():
            continue
        table = pq.read_table(paths[0])
        known = {each: table.column(each) for each in table.column_names if each not in COLUMNS}
        given = features.of(role, np.asarray(known["row"])) if features else None
        said = [_read_predictions(path) for path in paths]
        yield name, known, combine_predictions(rule, said, given)


def ensemble_figures(
    prepared: Prepared, recipe: Recipe, members: Mapping[str, Path]
) -> dict[str, Any]:
    """Return how members and rules stand beside the best member, and what greedy choice gains.

    `standings` has a line for each member and each rule, `selection` the share of its draws that
    greedy selection gives to each member, with the gain it seems to have over the best member and
    the one that remains on parts that neither was chosen on.

    Args:
        prepared: The ensemble's own.
        recipe: Its seed and its number of bootstrap samples are used.
        members: Name to the folder of the predictions.

    Raises:
        UserError: As `combine_run`.
    """
    held_out = read_held_out(members, recipe)
    features = _Features(prepared).of("train", held_out.rows.row)
    oof = held_out.oof._replace(views=Views(held_out.oof.views.logits, features))
    num_samples = recipe.validation.num_bootstraps
    lines = standings(oof, RULES, seed=recipe.seed, num_samples=num_samples)
    chosen = GREEDY.fit(oof.views, oof.labels)
    gain = selection_gain(GREEDY, oof, seed=recipe.seed, num_samples=num_samples)
    return {
        "combine": recipe.ensemble.combine,
        "standings": [_plain(line) for line in lines],
        "selection": {"shares": dict(zip(oof.names, chosen.weights, strict=True)), **_plain(gain)},
    }


def load_rule(run: Path) -> Fitted:
    """Return the rule that combines an ensemble's members, in the order of its recipe.

    Raises:
        UserError: The run has none yet, or one that scores no single pairs.
    """
    return rule_from_json(read_json(run / "predictions" / COMBINATION), run=str(run))


def read_held_out(members: Mapping[str, Path], recipe: Recipe) -> HeldOut:
    """Read the rows that all members hold out.

    Args:
        members: Name to the folder of the predictions.
        recipe: Its seed is used.

    Raises:
        UserError: A file cannot be read, members hold out other rows, or these lack a label.
    """
    scored = [read_scored(folder / VALIDATION) for folder in members.values()]
    first = scored[0]
    for folder, each in zip(members.values(), scored, strict=True):
        same = (each.row, first.row), (each.labels, first.labels), (each.groups, first.groups)
        if not all(np.array_equal(*pair) for pair in same):
            raise UserError(
                f"{folder}: of other held-out rows than those of the first member; "
                f"delete {folder.parent} and give the `desmatch run` again"
            )
    logits = np.stack([score_logits(each.honest_scores) for each in scored])
    return HeldOut(
        rows=first,
        members=[Predictions(each.forward, each.backward, each.scores) for each in scored],
        oof=OutOfFold(
            tuple(members), Views(logits), first.labels, _parts(first, recipe.seed), first.groups
        ),
    )


def _parts(rows: Scored, seed: int) -> NDArray[np.int64]:
    """Return (B,): the folds; of a single one as many parts of its components as show both labels.

    Raises:
        UserError: Not even two parts do.
    """
    if len(np.unique(rows.fold)) > 1:
        return rows.fold.astype(np.int64)
    for num_parts in range(MOST_PARTS, 1, -1):
        rng = generator(seed, "parts of held-out rows", num_parts)
        parts = deal_folds(rows.groups, num_folds=num_parts, rng=rng)
        shown = {(part, label) for part, label in zip(parts, rows.labels, strict=True)}
        if len(shown) == 2 * num_parts:
            return parts
    raise UserError(
        f"members: {len(rows.row)} held-out rows are too few to combine them by; set "
        "--validation.num_folds lower, or train all folds with --folds 5"
    )


class _Features:
    """Features of rows without a model, for stacking."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        rows = prepared.rows
        self.texts = count_texts(*(column(rows[role], side) for role in ROLES for side in "ab"))

    def of(self, role: str, rows: NDArray[np.int64]) -> Floats:
        """Return (F, rows), of these rows of a role."""
        prepared = self.prepared
        a, b = (column(prepared.rows[role], side).take(rows) for side in "ab")
        described = stacking_features(a, b, prepared.vocabulary, self.texts, prepared.id_counts)
        return np.stack([*described.values()])


def _read_predictions(path: Path) -> Predictions:
    return Predictions(*(read_column(path, name) for name in COLUMNS))


def _write(
    path: Path, known: Mapping[str, Any], combined: Predictions, **more: NDArray[np.float64]
) -> None:
    """Write what is known of rows, what the ensemble says of them, and more columns."""
    columns = {**known, **combined.columns(), **more}
    with atomic_write(path) as partial:
        pq.write_table(pa.table(columns), partial)


def _plain(line: NamedTuple) -> dict[str, Any]:
    """Return a line of figures as what JSON can hold."""
    values = line._asdict()
    return {name: [*each] if isinstance(each, tuple) else each for name, each in values.items()}
