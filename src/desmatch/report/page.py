"""The report of a run: one self-contained HTML page, its figures as PNG files, its numbers as JSON.

The page loads nothing: style, script and figures are inside it, and a content security policy
forbids the rest, any other script included. Whatever the card lacks is left out or shown as a dash,
so that a report can be made of an older run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from desmatch.report import tables
from desmatch.report.advice import next_steps
from desmatch.report.drawings import draw_figures
from desmatch.report.html import Shown, render, show
from desmatch.report.standings import selection_text, standing_rows
from desmatch.report.svg import to_png
from desmatch.runs import atomic_folder, write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from desmatch.report.content import ReportContent

REPORT, REPORT_JSON = "report.html", "report.json"
FIGURES = "figures"
SHOWN = {"recipe_name", "seed", "minutes", "recipe", "versions", "warnings", "data", "graph",
         "validation", "drift", "pseudo_labels"}  # fmt: skip
"""Keys of the card that have their place on the page."""


def write_report(run: Path, content: ReportContent) -> Path:
    """Write `report.html`, `report.json` and `figures/*.png` into a run's folder.

    The same content gives the same bytes.

    Args:
        run: The run's folder.
        content: What the report shows.

    Returns:
        The page's path.
    """
    drawn = list(draw_figures(content))
    with atomic_folder(run / FIGURES) as folder:
        for each in drawn:
            (folder / f"{each.name}.png").write_bytes(to_png(each.figure))
    shown = show(drawn)
    write_json(run / REPORT_JSON, report_json(content, shown))
    path = run / REPORT
    write_text(path, page_html(content, shown))
    return path


def report_json(content: ReportContent, shown: Iterable[Shown]) -> dict[str, Any]:
    """Return every figure on the page: the card, what to do next, and the points of each plot."""
    validation = tables.mapping(content.card.get("validation"))
    return {
        "headline": tables.headline(validation)._asdict(),
        "next_steps": [step._asdict() for step in next_steps(content.card, content.history)],
        "card": without_nan(content.card),
        "figures": figures_json(shown),
    }


def figures_json(shown: Iterable[Shown]) -> dict[str, Any]:
    """Return the points of each plot, by its name."""
    return {
        drawn.name: {
            "title": drawn.title,
            "caption": drawn.caption,
            "series": [each.for_json() for each in series],
        }
        for drawn, _, series in shown
    }


def page_html(content: ReportContent, shown: Sequence[Shown]) -> str:
    """Return the page as HTML text."""
    card = content.card
    validation, drift = (tables.mapping(card.get(key)) for key in ("validation", "drift"))
    return render(
        REPORT,
        card=card,
        validation=validation,
        drift=drift,
        headline=tables.headline(validation),
        headline_bar=tables.headline_bar(validation),
        steps=next_steps(card, content.history),
        tables={
            "aucs": tables.auc_rows(validation),
            "others": tables.other_rows(validation),
            "folds": tables.fold_rows(validation),
            "rounds": tables.round_rows(card),
            "calibration": tables.calibration_rows(validation),
            "threshold": tables.threshold_rows(validation),
            "order": tables.order_rows(validation),
            "standings": standing_rows(validation),
            "slices": tables.slice_rows(validation),
            "hardest": tables.hardest_rows(card),
            "drift": tables.drift_rows(drift),
            "graph": tables.graph_rows(tables.mapping(card.get("graph"))),
        },
        recipe=list(tables.flat_values(tables.mapping(card.get("recipe")))),
        rest=[item for item in tables.flat_values(card) if item[0].split(".")[0] not in SHOWN],
        selection=selection_text(validation),
        figures=shown,
    )


def without_nan(value: Any) -> Any:  # noqa: ANN401 - any value of a card
    """Return a card's value with null in place of what JSON cannot say."""
    if isinstance(value, Mapping):
        return {str(key): without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
