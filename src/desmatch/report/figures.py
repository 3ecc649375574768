"""Figures of a run: each function makes a figure from arrays, `to_svg` and `to_png` write it.

Text and axes are drawn in one grey, INK; as SVG they take the colour of the text around them
(`currentColor`), so that a figure reads well on a light and on a dark page. The same arrays give
the same bytes: no date, no random id, no global state of pyplot.

Shapes: B validation rows, T test rows, C components, P parts of a model.
"""

from __future__ import annotations

import re
from html import escape
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from desmatch.metrics.calibration import reliability_bins
from desmatch.metrics.roc import roc_auc, roc_curve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from desmatch.metrics.intervals import Interval

INK = "#7b7b7b"
BLUE, ORANGE, GREEN = "#3a86d4", "#dd6b20", "#2a9d6f"
CURVE_POINTS = 200
FIGURE_INCHES = (4.1, 2.9)
NUM_BINS = 40
MOST_LENGTHS = 60
MOST_PARTS = 13
STYLE: dict[str, Any] = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.prop_cycle": f"cycler(color={[BLUE, ORANGE, GREEN]})",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "grid.alpha": 0.3,
    "grid.color": INK,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
}
"""What differs from matplotlib's defaults; `$` in a name of the user's is not mathematics."""

SVG_CHANGES = (
    (r"<metadata>.*?</metadata>\s*", ""),
    (r"<!--.*?-->\s*", ""),
    (r' id="[A-Za-z0-9.]+_\d+"', ""),  # figure_1 is in each figure, and nothing refers to it
    (r"\n\s*", "\n"),
    (r"(\.\d\d)\d{3,4}(?=[ \"])", r"\1"),  # a hundredth of a point is enough
    (INK, "currentColor"),
    ("'DejaVu Sans'", "sans-serif"),
)
"""Regular expressions and their replacements that make a page's figures small and its own."""


@mpl.rc_context(STYLE)
def training_figure(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the loss and the validation AUC of one stage against its steps.

    Args:
        history: Logged steps: {"step", "loss"?, "roc_auc"?}; others are passed over. A long
            loss is drawn as the means of 200 stretches.
    """
    figure, axes = _figure("step", "loss (nats)")
    loss, auc = _series(history, "loss"), _series(history, "roc_auc")
    axes.plot(*_stretches(loss), color=BLUE, label="loss")
    if len(auc):
        right = axes.twinx()
        right.spines["right"].set_visible(True)
        right.plot(*auc.T, color=ORANGE, marker=".", label="validation AUC")
        right.set_ylabel("validation AUC", color=ORANGE)
    axes.yaxis.label.set_color(BLUE)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    return figure


@mpl.rc_context(STYLE)
def roc_figure(labels: np.ndarray, scores: np.ndarray, interval: Interval | None) -> Figure:
    """Draw the ROC curve with its area and the area's interval.

    Args:
        labels: (B,), int, 0 or 1, both present.
        scores: (B,), float.
        interval: Of the AUC; None where none was made.
    """
    figure, axes = _figure(
        "false positives (share of different pairs)", "true positives (share of same pairs)"
    )
    text = f"AUC {roc_auc(labels, scores):.4f}"
    if interval is not None:
        text += f" ({interval[0]:.4f} to {interval[1]:.4f})"
    axes.plot([0, 1], [0, 1], color=INK, linestyle=":", label="chance")
    axes.plot(*roc_curve(labels, scores, max_points=CURVE_POINTS), color=BLUE, label=text)
    axes.legend(loc="lower right")
    return figure


@mpl.rc_context(STYLE)
def reliability_figure(labels: np.ndarray, scores: np.ndarray) -> Figure:
    """Draw the share of positive rows against the mean score, bin by bin.

    Args:
        labels: (B,), int, 0 or 1.
        scores: (B,), float, in [0, 1].
    """
    figure, axes = _figure("mean score of a bin", "share of same pairs in the bin")
    bins = reliability_bins(labels, scores)
    area = 12 + 140 * bins.counts / bins.counts.sum()
    axes.plot([0, 1], [0, 1], color=INK, linestyle=":", label="a score is a probability")
    axes.plot(bins.mean_probs, bins.positive_shares, color=BLUE, linewidth=1)
    axes.scatter(
        bins.mean_probs, bins.positive_shares, s=area, color=BLUE, label="validation (area: rows)"
    )
    axes.legend(loc="upper left")
    return figure


@mpl.rc_context(STYLE)
def score_figure(labels: np.ndarray, scores: np.ndarray, test_scores: np.ndarray) -> Figure:
    """Draw the validation's scores as stacked bars by class, and the test's as an outline.

    Args:
        labels: (B,), int, 0 or 1.
        scores: (B,), float, in [0, 1].
        test_scores: (T,), float, in [0, 1]; T may be 0.
    """
    figure, axes = _figure("score", "share of rows (%)")
    edges = np.linspace(0, 1, NUM_BINS + 1)
    different, same = (
        100 * np.histogram(scores[labels == label], edges)[0] / len(scores) for label in (0, 1)
    )
    axes.stairs(different, edges, fill=True, color=BLUE, alpha=0.75, label="different pairs")
    axes.stairs(
        different + same, edges, baseline=different, fill=True, color=ORANGE, alpha=0.75,
        label="same pairs",
    )  # fmt: skip
    if len(test_scores):
        shares = 100 * np.histogram(test_scores, edges)[0] / len(test_scores)
        axes.stairs(shares, edges, color=INK, linewidth=1.5, label="test, all pairs")
    axes.legend(loc="upper center")
    return figure


@mpl.rc_context(STYLE)
def length_figure(lengths: Mapping[str, np.ndarray]) -> Figure:
    """Draw how long the texts of each file are.

    Args:
        lengths: Role of a file -> (texts,), int, ids of each text. The longest 0.5 % of a
            file may lie outside.
    """
    figure, axes = _figure("length of a text (ids)", "share of texts (%)")
    filled = {role: values for role, values in lengths.items() if len(values)}
    longest = max((int(np.quantile(each, 0.995)) for each in filled.values()), default=1)
    step = -(-(longest + 1) // MOST_LENGTHS)
    edges = np.arange(0, longest + 1 + step, step) - 0.5
    for role, values in filled.items():
        shares = 100 * np.histogram(values, edges)[0] / len(values) / step
        axes.stairs(shares, edges, linewidth=1.5, label=role)
    axes.legend(loc="upper right")
    return figure


@mpl.rc_context(STYLE)
def component_figure(component_sizes: np.ndarray) -> Figure:
    """Draw how many components of the query graph have which size, both axes logarithmic.

    Args:
        component_sizes: (C,), int, rows of each component, 1 or more.
    """
    figure, axes = _figure("size of a component (rows)", "components of that size")
    sizes, counts = np.unique(component_sizes, return_counts=True)
    axes.scatter(sizes, counts, s=14, color=BLUE)
    axes.loglog()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axis.set_minor_formatter("")
    return figure


@mpl.rc_context(STYLE)
def depth_figure(
    names: Sequence[str], series: Mapping[str, np.ndarray], *, y_label: str, is_log: bool = False
) -> Figure:
    """Draw a figure of a model's parts, lowest part on the left, one line a series.

    Args:
        names: (P,), of the parts; of many parts some are named.
        series: Name to (P,), float; NaN where a part has no figure.
        y_label: What is drawn.
        is_log: Whether its axis is logarithmic.
    """
    figure, axes = _figure("layer or other part, lowest first", y_label)
    for name, values in series.items():
        axes.plot(np.arange(len(names)), values, marker=".", label=name)
    if is_log:
        axes.set_yscale("log")
    step = -(-len(names) // MOST_PARTS)
    places = range(0, len(names), step)
    axes.set_xticks(places, [names[place] for place in places], rotation=45, ha="right", size=7)
    axes.legend(loc="best")
    return figure


def to_svg(figure: Figure, *, title: str) -> str:
    """Return a figure as one <svg> element, named `title` for readers who do not see it.

    Figures of one page need different titles: the ids inside are made from them.
    """
    stream = StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({**STYLE, "svg.hashsalt": title}):  # ids differ from figure to figure
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    for pattern, text in SVG_CHANGES:
        svg = re.sub(pattern, text, svg, flags=re.DOTALL)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)


def to_png(figure: Figure) -> bytes:
    """Return a figure as a PNG of 160 dots per inch, on a transparent ground."""
    stream = BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(stream, format="png", dpi=160, transparent=True, metadata={"Software": None})
    return stream.getvalue()


def _figure(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=FIGURE_INCHES)
    axes = figure.add_subplot(xlabel=x_label, ylabel=y_label)
    axes.grid(visible=True)
    axes.set_axisbelow(True)
    return figure, axes


def _series(history: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """Return the (N, 2) points (step, value) of the logged steps that hold the value."""
    points = [(each["step"], each[name]) for each in history if each.get(name) is not None]
    return np.array(points, dtype=float).reshape(-1, 2)


def _stretches(points: np.ndarray) -> np.ndarray:
    """Return (2, N) steps and values, a long series as means of CURVE_POINTS stretches."""
    if len(points) <= CURVE_POINTS:
        return points.T
    return np.array([each.mean(axis=0) for each in np.array_split(points, CURVE_POINTS)]).T
