"""The page of a search for a recipe's values, and its figures as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from desmatch.report import tuning_figures
from desmatch.report.drawings import Drawn
from desmatch.report.html import render, show
from desmatch.report.page import figures_json
from desmatch.runs import write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

PAGE = "tuning.html"
REPORT, REPORT_JSON = "report.html", "report.json"


def write_tuning(folder: Path, figures: Mapping[str, Any]) -> Path:
    """Write the page of a study and report.json beside it.

    Args:
        folder: Of the study.
        figures: As `desmatch.tune.outcome.study_figures` gives them.

    Returns:
        The page's path.
    """
    shown = show(draw_tuning(figures))
    write_json(folder / REPORT_JSON, {**figures, "figures": figures_json(shown)})
    path = folder / REPORT
    best = figures["best"]
    folders = {each["number"]: each["folder"] for each in figures["trials"]}
    page = render(
        PAGE,
        plotted=shown,
        best_folder=None if best is None else folders[best["number"]],
        shown_space=[(key, span_text(span)) for key, span in figures["space"].items()],
        **figures,
    )
    write_text(path, page)
    return path


def span_text(span: Mapping[str, Any] | Sequence[Any]) -> str:
    """Return a range or choices in words: `1 to 5`, `none, fgm`."""
    if not isinstance(span, Mapping):
        return ", ".join("null" if each is None else str(each) for each in span)
    words = f"{span['low']:g} to {span['high']:g}"
    words += f" in steps of {span['step']:g}" if span["step"] is not None else ""
    return words + (", logarithmic" if span["log"] else "")


def draw_tuning(figures: Mapping[str, Any]) -> Iterator[Drawn]:
    """Yield the plots of a study, as far as its trials suffice for them."""
    trials = figures["trials"]
    if any(each["auc"] is not None for each in trials):
        yield Drawn(
            "course",
            "Course of the search",
            "A trial that is not finished was measured on fewer folds: its point does not compare "
            "with the finished ones.",
            tuning_figures.course_figure(trials, len(figures["folds"])),
            "course",
        )
    shares = figures["importance"]["shares"]
    if shares:
        yield Drawn(
            "importance",
            "Importance",
            "How much of the difference between trials a key explains, over the whole of its "
            "range; a key of no importance may be left as the recipe has it.",
            tuning_figures.importance_figure(shares),
            "course",
        )
    yield from _draw_values(figures)


def _draw_values(figures: Mapping[str, Any]) -> Iterator[Drawn]:
    finished = [each for each in figures["trials"] if each["state"] == "finished"]
    if len(finished) < 2:
        return
    for place, (key, span) in enumerate(figures["space"].items()):
        is_choice = isinstance(span, list)
        yield Drawn(
            f"value-{place}",
            key,
            "Each point is a finished trial, whose other values differ too; a best value at the "
            "edge of its range asks for a wider one.",
            tuning_figures.value_figure(
                key,
                [each["values"][key] for each in finished],
                [each["auc"] for each in finished],
                order=span if is_choice else None,
                is_log=not is_choice and span["log"],
            ),
            "values",
        )
