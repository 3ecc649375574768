"""The page that compares runs: what differs in their recipes, and what it did to their figures.

The first run is the one that the others are compared with, on the rows that both hold out.

Shapes: M runs, B rows that all of them hold out.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from desmatch.compare import compare_runs
from desmatch.errors import UserError
from desmatch.evaluate import read_scored
from desmatch.prepare import FIGURES, Prepared
from desmatch.report import figures
from desmatch.report.content import VALIDATION, read_card
from desmatch.report.drawings import Drawn
from desmatch.report.html import render, show
from desmatch.report.page import figures_json, without_nan
from desmatch.report.tables import (
    Row,
    file_name,
    finite,
    flat_values,
    headline,
    mapping,
    slice_rows,
    with_bars,
)
from desmatch.runs import write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from desmatch.evaluate import Scored

PAGE = "comparison.html"
MOST_DISAGREEMENTS = 20
ABSENT = "\N{EN DASH}"
"""What a recipe has that lacks a key."""


class ComparedRun(NamedTuple):
    """A run among others."""

    name: str
    folder: Path
    card: Mapping[str, Any]
    scored: Scored


def write_comparison(folders: Sequence[Path], out: Path) -> dict[str, Any]:
    """Write a page that compares runs, and its figures as JSON beside it.

    The same runs give the same bytes.

    Args:
        folders: Of two or more runs; the others are compared with the first.
        out: The page, `.html`.

    Returns:
        The figures.

    Raises:
        UserError: A folder is no finished run or is given twice, the runs are of other data or hold
            no rows out in common, or `out` is no `.html`.
    """
    if out.suffix != ".html":
        raise UserError(f"--out {out}: a page's name ends in .html; its figures go to .json beside")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("a run is given twice; a comparison needs different ones")
    runs = read_runs(folders)
    comparison = compare(runs)
    shown = show(draw_comparison(runs, comparison))
    write_json(out.with_suffix(".json"), {**comparison, "figures": figures_json(shown)})
    write_text(out, render(PAGE, figures=shown, **comparison, **_tables(runs)))
    return comparison


def read_runs(folders: Sequence[Path]) -> list[ComparedRun]:
    """Read the runs, each under the name of its folder, or its path where names are alike.

    Raises:
        UserError: A folder is no finished run.
    """
    names = [folder.resolve().name for folder in folders]
    return [
        ComparedRun(
            name if names.count(name) == 1 else str(folder),
            folder,
            read_card(folder),
            read_scored(folder / VALIDATION),
        )
        for name, folder in zip(names, folders, strict=True)
    ]


def compare(runs: Sequence[ComparedRun]) -> dict[str, Any]:
    """Return every figure of a comparison, as JSON holds it."""
    first, *others = runs
    paired = [
        {"first": first.name, "second": other.name, **compare_runs(first.folder, other.folder)}
        for other in others
    ]
    return {
        "runs": [_run_figures(run) for run in runs],
        "recipe_differences": recipe_differences([mapping(run.card.get("recipe")) for run in runs]),
        "paired": paired,
        "slices": _slices(runs),
        "disagreements": disagreements(runs),
        "warnings": sorted({warning for each in paired for warning in each["warnings"]}),
    }


def recipe_differences(recipes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the values of recipes whose values differ, by dotted key, in the recipes' order."""
    flat = [dict(flat_values(recipe)) for recipe in recipes]
    keys = dict.fromkeys(key for values in flat for key in values)
    found = [{"key": key, "values": [each.get(key, ABSENT) for each in flat]} for key in keys]
    return [each for each in found if any(value != each["values"][0] for value in each["values"])]


def disagreements(runs: Sequence[ComparedRun]) -> list[dict[str, Any]]:
    """Return the rows whose scores lie furthest apart, with their texts where these are there."""
    rows, scores, labels = shared_scores(runs)
    spread = scores.max(axis=0) - scores.min(axis=0)  # (B,)
    places = np.argsort(-spread, kind="stable")[:MOST_DISAGREEMENTS]
    prepared = runs[0].folder / "prepared"
    train = Prepared.load(prepared).rows["train"] if (prepared / FIGURES).is_file() else None
    return [
        {
            "row": int(rows[place]),
            "label": int(labels[place]),
            "scores": scores[:, place].tolist(),
            "spread": float(spread[place]),
            **(_texts(runs[0].card, train[int(rows[place])]) if train is not None else {}),
        }
        for place in places
    ]


def shared_scores(runs: Sequence[ComparedRun]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows that all runs hold out, (B,), their honest scores, (M, B), and labels, (B,).

    Raises:
        UserError: There are none, or not of both labels.
    """
    rows = reduce(np.intersect1d, [run.scored.row for run in runs])
    orders = [np.argsort(run.scored.row) for run in runs]
    places = [
        order[np.searchsorted(run.scored.row, rows, sorter=order)]
        for run, order in zip(runs, orders, strict=True)
    ]
    labels = runs[0].scored.labels[places[0]]
    if len(np.unique(labels)) < 2:
        names = ", ".join(str(run.folder) for run in runs)
        raise UserError(
            f"{names}: no rows of both labels are held out by all of them; runs can be compared "
            "that hold out the same fold of the same folds and seed"
        )
    scores = [run.scored.honest_scores[each] for run, each in zip(runs, places, strict=True)]
    return rows, np.array(scores), labels


def draw_comparison(runs: Sequence[ComparedRun], comparison: Mapping[str, Any]) -> list[Drawn]:
    """Return the figures of a comparison."""
    paired = comparison["paired"]
    _, scores, labels = shared_scores(runs)
    forest = figures.forest_figure(
        [each["second"] for each in paired],
        np.array([each["difference"] for each in paired]),
        np.array([each["interval"] for each in paired]),
        x_label=f"AUC minus that of {runs[0].name}",
    )
    curves = {run.name: (labels, each) for run, each in zip(runs, scores, strict=True)}
    return [
        Drawn(
            "differences",
            f"Against {runs[0].name}",
            "A run whose whole interval lies right of the dotted line is better beyond the luck "
            "of the held-out rows, though not beyond that of its seed.",
            forest,
            "comparison",
        ),
        Drawn(
            "roc",
            "ROC curves",
            "On the rows that all runs hold out; where one curve lies above another it finds more "
            "at the same price.",
            figures.roc_overlay_figure(curves),
            "comparison",
        ),
    ]


def _run_figures(run: ComparedRun) -> dict[str, Any]:
    validation = mapping(run.card.get("validation"))
    found: dict[str, Any] = without_nan(
        {
            "name": run.name,
            "folder": str(run.folder),
            **{key: run.card.get(key) for key in ("recipe_name", "seed", "minutes", "revision")},
            "headline": headline(validation)._asdict(),
            **{key: validation.get(key) for key in ("auc", "log_loss", "rows")},
        }
    )
    return found


def _slices(runs: Sequence[ComparedRun]) -> list[dict[str, Any]]:
    """Return the slices of the first run that another has too, with every run's AUC on them."""
    tables = [
        {(row.name, str(row.cells.get("value"))): row for row in slice_rows(_validation(run))}
        for run in runs
    ]
    return [
        {
            "slice": name,
            "value": value,
            "rows": finite(row.cells.get("rows")),
            "aucs": [each[name, value].value if (name, value) in each else None for each in tables],
        }
        for (name, value), row in tables[0].items()
        if any((name, value) in each for each in tables[1:])
    ]


def _tables(runs: Sequence[ComparedRun]) -> dict[str, Any]:
    """Return what the page shows as bars: each run's claim, on one scale."""
    claims = [headline(_validation(run)) for run in runs]
    rows = [Row(run.name, claim.value, claim.interval)
            for run, claim in zip(runs, claims, strict=True)]  # fmt: skip
    return {"claims": with_bars(rows)}


def _validation(run: ComparedRun) -> Mapping[str, Any]:
    return mapping(run.card.get("validation"))


def _texts(card: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "file": file_name(card, row["file"]),
        **{key: row[key] for key in ("line", "a", "b")},
    }
