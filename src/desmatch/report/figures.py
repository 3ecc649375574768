"""Figures of a run: each function makes a figure from arrays, `report.svg` writes it.

Text and axes are drawn in one grey, INK; as SVG they take the colour of the text around them
(`currentColor`), so that a figure reads well on a light and on a dark page. The same arrays give
the same bytes: no date, no random id, no global state of pyplot.

Shapes: B validation rows, T test rows, C components, P parts of a model, M runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from sklearn.metrics import average_precision_score, precision_recall_curve

from desmatch.metrics.calibration import reliability_bins
from desmatch.metrics.roc import roc_auc, roc_curve
from desmatch.report.svg import BLUE, GREEN, INK, ORANGE, STYLE, note_points, short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from desmatch.metrics.intervals import Interval

CURVE_POINTS = 200
FIGURE_INCHES = (4.6, 3.0)
NUM_BINS = 40
MOST_LENGTHS = 60
MOST_PARTS = 13
UNLIKELY = 0.995
"""Of lengths and weights, the quantile beyond which a figure may end."""


@mpl.rc_context(STYLE)
def training_figure(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the loss and the validation AUC of one stage against its steps, a line each a fold.

    Args:
        history: Logged steps: {"step", "loss"?, "roc_auc"?, "fold"?}; others are passed over. A
            long loss is drawn as the means of 200 stretches.
    """
    figure, axes = _figure("step", "loss (nats)")
    folds = sorted({each.get("fold", 0) for each in history})
    right = axes.twinx() if len(_values(history, "roc_auc")) else None
    for fold in folds:
        entries = [each for each in history if each.get("fold", 0) == fold]
        suffix, alpha = ("", 1.0) if len(folds) == 1 else (f", fold {fold}", 0.75)
        loss, auc = _values(entries, "loss"), _values(entries, "roc_auc")
        axes.plot(*_stretches(loss), color=BLUE, alpha=alpha, label=f"loss{suffix}")
        if len(masked := _values(entries, "mlm_loss")):
            axes.plot(*masked.T, color=BLUE, linestyle="--", marker=".", label="loss, dropout off")
        if right is not None and len(auc):
            right.plot(*auc.T, color=ORANGE, alpha=alpha, marker=".", label=f"AUC{suffix}")
    if right is not None:
        right.set_ylabel("validation AUC", color=ORANGE)
        right.grid(visible=False)
    axes.yaxis.label.set_color(BLUE)
    axes.xaxis.set_major_locator(MaxNLocator(5))
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
    text = f"AUC {roc_auc(labels, scores):.4f}"
    if interval is not None:
        text += f" ({interval[0]:.4f} to {interval[1]:.4f})"
    return roc_overlay_figure({text: (labels, scores)})


@mpl.rc_context(STYLE)
def roc_overlay_figure(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Draw several ROC curves.

    Args:
        curves: Name to labels and scores, each (B,), both labels present.
    """
    figure, axes = _figure(
        "false positives (share of different pairs)", "true positives (share of same pairs)"
    )
    axes.plot([0, 1], [0, 1], color=INK, linestyle=":", label="chance")
    for name, (labels, scores) in curves.items():
        curve = roc_curve(labels, scores, max_points=CURVE_POINTS)
        (line,) = axes.plot(*curve, label=name)
        called = curve.false_positive_rate * np.sum(labels == 0)
        called += curve.true_positive_rate * np.sum(labels == 1)
        descending = np.sort(scores)[::-1]
        ranks = np.rint(called).astype(int)
        note_points(line, [_threshold(descending[rank - 1] if rank else None) for rank in ranks])
    _unit_square(axes)
    axes.legend(loc="lower right")
    return figure


@mpl.rc_context(STYLE)
def precision_figure(labels: np.ndarray, scores: np.ndarray) -> Figure:
    """Draw the precision against the recall; its area is the average precision.

    Args:
        labels: (B,), int, 0 or 1, both present.
        scores: (B,), float.
    """
    figure, axes = _figure(
        "recall (share of same pairs that are found)", "precision (share of the found)"
    )
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    kept = np.unique(np.linspace(0, len(recall) - 1, CURVE_POINTS).astype(int))
    positives = float(np.mean(labels))
    axes.plot([0, 1], [positives] * 2, color=INK, linestyle=":", label="chance")
    text = f"area {average_precision_score(labels, scores):.4f}"
    (line,) = axes.plot(recall[kept], precision[kept], color=BLUE, label=text)
    note_points(line, [_threshold(each) for each in np.array([*thresholds, None])[kept]])
    _unit_square(axes)
    axes.legend(loc="lower left")
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
    label = "validation (area: rows)"
    axes.plot(bins.mean_probs, bins.positive_shares, color=BLUE, linewidth=1, label=f"_{label}")
    dots = axes.scatter(bins.mean_probs, bins.positive_shares, s=area, color=BLUE, label=label)
    note_points(dots, [f"{count:,} rows" for count in bins.counts])
    _unit_square(axes)
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
        axes.stairs(shares, edges, color=INK, linewidth=1.4, label="test, all pairs")
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
    longest = max((int(np.quantile(each, UNLIKELY)) for each in filled.values()), default=1)
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
    axes.scatter(sizes, counts, s=16, color=BLUE, label="components")
    axes.loglog()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axis.set_minor_formatter("")
    return figure


@mpl.rc_context(STYLE)
def weight_figure(weights: np.ndarray) -> Figure:
    """Draw how much the labelled rows count for when they stand for the test.

    Args:
        weights: (B,), float, mean 1; the largest 0.5 % may lie outside.
    """
    figure, axes = _figure("weight of a row (1: as common in the test)", "share of rows (%)")
    edges = np.linspace(0, max(float(np.quantile(weights, UNLIKELY)), 1.5), NUM_BINS + 1)
    shares = 100 * np.histogram(weights, edges)[0] / len(weights)
    axes.stairs(shares, edges, fill=True, color=GREEN, alpha=0.8, label="labelled rows")
    axes.axvline(1, color=INK, linestyle=":", label="weight 1")
    return figure


@mpl.rc_context(STYLE)
def forest_figure(
    names: Sequence[str], differences: np.ndarray, intervals: np.ndarray, *, x_label: str
) -> Figure:
    """Draw differences with their intervals, first on top; the dotted line is no difference.

    Args:
        names: (M,).
        differences: (M,), float.
        intervals: (M, 2), float.
        x_label: What is drawn.
    """
    figure = Figure(figsize=(FIGURE_INCHES[0], 0.9 + 0.35 * len(names)))
    axes = figure.add_subplot(xlabel=x_label)
    heights = np.arange(len(names))[::-1]
    axes.axvline(0, color=INK, linestyle=":", label="no difference")
    for height, (low, high) in zip(heights, intervals, strict=True):
        axes.plot([low, high], [height] * 2, color=BLUE, label="_difference", linewidth=2)
    dots = axes.scatter(differences, heights, s=36, color=BLUE, label="difference", zorder=3)
    texts = [
        f"{name}: {low:+.4f} to {high:+.4f}"
        for name, (low, high) in zip(names, intervals, strict=True)
    ]
    note_points(dots, texts)
    axes.set_yticks(heights, names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5))
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


def _figure(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=FIGURE_INCHES)
    axes = figure.add_subplot(xlabel=x_label, ylabel=y_label)
    return figure, axes


def _unit_square(axes: Axes) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))


def _threshold(score: float | None) -> str:
    """Return in words which rows are called the same."""
    return "no row" if score is None else f"score {short(score)} or more"


def _values(history: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """Return the (N, 2) points (step, value) of the logged steps that hold the value."""
    points = [(each["step"], each[name]) for each in history if each.get(name) is not None]
    return np.array(points, dtype=float).reshape(-1, 2)


def _stretches(points: np.ndarray) -> np.ndarray:
    """Return (2, N) steps and values, a long series as means of CURVE_POINTS stretches."""
    if len(points) <= CURVE_POINTS:
        return points.T
    return np.array([each.mean(axis=0) for each in np.array_split(points, CURVE_POINTS)]).T
