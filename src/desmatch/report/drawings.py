"""The figures of one run with their words: which the content suffices for, and where they stand.

Shapes: B validation rows.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from desmatch.metrics.calibration import expected_calibration_error
from desmatch.metrics.intervals import Interval
from desmatch.report import figures
from desmatch.report.tables import interval, mapping

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from matplotlib.figure import Figure

    from desmatch.report.content import ReportContent

Section = Literal["validation", "drift", "graph", "training", "comparison", "course", "values",
                  "attack", "treatments"]  # fmt: skip


class Drawn(NamedTuple):
    """A figure with its words."""

    name: str
    """Of the PNG file, without its suffix."""
    title: str
    caption: str
    """One sentence that says how to read the figure."""
    figure: Figure
    section: Section
    """Where on the page it stands."""


def draw_figures(content: ReportContent) -> Iterator[Drawn]:
    """Yield the figures the content suffices for, in the order of the page."""
    if set(np.unique(content.labels).tolist()) == {0, 1}:
        yield from _validation(content)
    yield from _data(content)
    yield from _training(content.history)


def _data(content: ReportContent) -> Iterator[Drawn]:
    if any(len(values) for values in content.lengths.values()):
        yield Drawn(
            "lengths",
            "Text lengths",
            "The outlines should lie on each other; a file whose texts are longer or shorter "
            "than the training's is a shift the validation does not show.",
            figures.length_figure(content.lengths),
            "drift",
        )
    if len(content.weights) and np.ptp(content.weights) > 0:
        yield Drawn(
            "weights",
            "Weights of the labelled rows",
            "A row of weight 2 is twice as common in the test as among the labelled rows; a long "
            "tail to the right means that few rows carry the weighted AUC.",
            figures.weight_figure(content.weights),
            "drift",
        )
    if len(content.component_sizes):
        yield Drawn(
            "components",
            "Components of the query graph",
            "Rows that share a text form a component, which is held out as a whole; a dot far to "
            "the right is one so large that it may have to be cut.",
            figures.component_figure(content.component_sizes),
            "graph",
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
            "training",
        )


def _validation(content: ReportContent) -> Iterator[Drawn]:
    labels, scores = content.labels, content.scores
    ends = interval(mapping(content.card.get("validation")).get("validation_interval"))
    yield Drawn(
        "roc",
        "ROC curve",
        "Each point is a threshold: the nearer the curve runs to the upper left corner the "
        "better, and the dotted line is guessing.",
        figures.roc_figure(labels, scores, Interval(*ends) if ends else None),
        "validation",
    )
    yield Drawn(
        "precision",
        "Precision and recall",
        "How many of the pairs called the same are, against how many of the same are found; the "
        "dotted line is guessing.",
        figures.precision_figure(labels, scores),
        "validation",
    )
    error = expected_calibration_error(labels, scores)
    yield Drawn(
        "reliability",
        "Reliability of the scores",
        "On the dotted line a score of 0.8 is right in 8 of 10 pairs; the points lie "
        f"{error:.3f} off it on average (expected calibration error), which does not change "
        "the AUC.",
        figures.reliability_figure(labels, scores),
        "validation",
    )
    yield Drawn(
        "scores",
        "Scores by class",
        "The further the two colours lie apart the better; where the outline of the test leaves "
        "the stacked bars, the test is unlike the validation.",
        figures.score_figure(labels, scores, content.test_scores),
        "validation",
    )
