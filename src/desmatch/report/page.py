"""The report of a run: one self-contained HTML page, and its figures as PNG files.

The page loads nothing: style and figures are inside it, and a content security policy forbids the
rest. Whatever the card lacks is shown as a dash, so that a report can be made of an older run.

Shapes: B validation rows, T test rows, C components.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jinja2 import ChainableUndefined, Environment, PackageLoader, Undefined
from markupsafe import Markup

from desmatch.metrics.calibration import expected_calibration_error
from desmatch.metrics.intervals import Interval
from desmatch.report import figures
from desmatch.runs import atomic_folder, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.figure import Figure

DASH = "\N{EN DASH}"
REPORT = "report.html"
FIGURES = "figures"
SHOWN = {"recipe_name", "seed", "minutes", "recipe", "versions", "warnings", "data", "graph",
         "validation"}  # fmt: skip
"""Keys of the card that have their place on the page."""

_no_values = partial(np.empty, 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportContent:
    """What a report is made of; a part left out leaves its figure out."""

    card: Mapping[str, Any]
    """The run's card.json. Keys, all optional: recipe_name, seed, minutes, recipe (nested),
    versions, warnings [text], data [{role, path, sha256 (text or list), rows, distinct_texts,
    positives, oov_share, mean_length, median_length, p99_length}], graph {name: figure}, validation
    {auc, validation_interval [low, high], interval [low, high] of a test of test_size rows, rows,
    and any other figure}. Further keys are listed at the end of the page."""
    history: Sequence[Mapping[str, Any]] = ()
    """One entry a logged step: {stage, step, loss?, roc_auc?}."""
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


class Drawn(NamedTuple):
    """A figure with its words."""

    name: str
    """Of the PNG file, without its suffix."""
    title: str
    caption: str
    """One sentence that says how to read the figure."""
    figure: Figure


def write_report(run: Path, content: ReportContent) -> Path:
    """Write `report.html` and `figures/*.png` into a run's folder, whole or not at all.

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
            (folder / f"{each.name}.png").write_bytes(figures.to_png(each.figure))
    path = run / REPORT
    write_text(path, page_html(content, drawn))
    return path


def page_html(content: ReportContent, drawn: Sequence[Drawn]) -> str:
    """Return the page as HTML text."""
    return (
        _environment()
        .get_template(REPORT)
        .render(
            card=content.card,
            recipe=list(flat_values(content.card.get("recipe") or {})),
            rest=[item for item in flat_values(content.card) if item[0].split(".")[0] not in SHOWN],
            figures=[
                # safe: matplotlib and to_svg escape every text inside
                (each, Markup(figures.to_svg(each.figure, title=each.title)))
                for each in drawn
            ],
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("desmatch.report"),
        autoescape=True,
        undefined=ChainableUndefined,
        finalize=lambda value: DASH if is_missing(value) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, share=share)
    return environment


def draw_figures(content: ReportContent) -> Iterator[Drawn]:
    """Yield the figures the content suffices for, in the order of the page."""
    yield from _training(content.history)
    if set(np.unique(content.labels).tolist()) == {0, 1}:
        yield from _validation(content)
    if any(len(values) for values in content.lengths.values()):
        yield Drawn(
            "lengths",
            "Text lengths",
            "The outlines should lie on each other; a file whose texts are longer or shorter "
            "than the training's is a shift the validation does not show.",
            figures.length_figure(content.lengths),
        )
    if len(content.component_sizes):
        yield Drawn(
            "components",
            "Components of the query graph",
            "Rows that share a text form a component, which is held out as a whole; a dot far to "
            "the right is one so large that it may have to be cut.",
            figures.component_figure(content.component_sizes),
        )


def _training(history: Sequence[Mapping[str, Any]]) -> Iterator[Drawn]:
    stages: dict[str, list[Mapping[str, Any]]] = {}
    for entry in history:
        stages.setdefault(str(entry.get("stage", "training")), []).append(entry)
    for stage, entries in stages.items():
        yield Drawn(
            f"training-{re.sub('[^a-z0-9]+', '-', stage.lower()).strip('-')}",
            f"Training: {stage}",
            "The loss should fall and flatten; a validation AUC that falls while the loss goes on "
            "falling means that the model learns its training rows by heart.",
            figures.training_figure(entries),
        )


def _validation(content: ReportContent) -> Iterator[Drawn]:
    labels, scores = content.labels, content.scores
    validation = content.card.get("validation") or {}
    interval = validation.get("validation_interval") or [None]
    is_known = not any(map(is_missing, interval))
    yield Drawn(
        "roc",
        "ROC of the validation",
        "Each point is a threshold: the nearer the curve runs to the upper left corner the "
        "better, and the dotted line is guessing.",
        figures.roc_figure(labels, scores, Interval(*interval) if is_known else None),
    )
    error = expected_calibration_error(labels, scores)
    yield Drawn(
        "reliability",
        "Reliability of the scores",
        "On the dotted line a score of 0.8 is right in 8 of 10 pairs; the points lie "
        f"{error:.3f} off it on average (expected calibration error), which does not change "
        "the AUC.",
        figures.reliability_figure(labels, scores),
    )
    yield Drawn(
        "scores",
        "Scores by class",
        "The further the two colours lie apart the better; where the outline of the test leaves "
        "the stacked bars, the test is unlike the validation.",
        figures.score_figure(labels, scores, content.test_scores),
    )


def flat_values(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of every value of nested mappings."""
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from flat_values(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def is_missing(value: object) -> bool:
    """Whether a value is absent: undefined, None or NaN."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or isinstance(value, Undefined)


def number(value: Any, digits: int = 0) -> str:  # noqa: ANN401 - any value of a card
    """Return `1,234.50` for a number, a dash for a missing one, any other value as its text."""
    if is_missing(value):
        return DASH
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,.{0 if isinstance(value, int) else digits}f}"


def share(value: Any) -> str:  # noqa: ANN401 - any value of a card
    """Return a share in [0, 1] as per cent, `12.34 %`, a dash for a missing one."""
    if isinstance(value, int | float) and not is_missing(value):
        return f"{100 * value:.2f}\N{NO-BREAK SPACE}%"
    return number(value)
