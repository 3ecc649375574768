"""Figures of a search: its course, what mattered, and each key's values beside their AUC.

Shapes: T trials, P searched keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from desmatch.report.svg import BLUE, GREEN, ORANGE, STYLE, note_points, short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIGURE_INCHES = (4.6, 3.0)


@mpl.rc_context(STYLE)
def course_figure(trials: Sequence[Mapping[str, Any]], num_folds: int) -> Figure:
    """Draw the AUC of each trial, and the best of the finished ones so far.

    Args:
        trials: (T,), with `number`, `state`, `folds` and `auc`, which may be none.
        num_folds: That a finished trial has trained.
    """
    figure = Figure(figsize=FIGURE_INCHES)
    axes = figure.add_subplot(xlabel="trial", ylabel="AUC over the folds so far")
    finished = [each for each in trials if each["state"] == "finished"]
    others = [each for each in trials if each["state"] != "finished" and each["auc"] is not None]
    if finished:
        numbers = [each["number"] for each in finished]
        aucs = np.array([each["auc"] for each in finished])
        axes.plot(numbers, np.maximum.accumulate(aucs), color=GREEN, drawstyle="steps-post",
                  label="best so far")  # fmt: skip
        axes.scatter(numbers, aucs, s=22, color=BLUE, label="finished", zorder=3)
    if others:
        dots = axes.scatter([each["number"] for each in others], [each["auc"] for each in others],
                            s=22, color=ORANGE, label="not finished", zorder=3)  # fmt: skip
        note_points(dots, [f"{each['state']}, {each['folds']} of {num_folds} folds"
                           for each in others])  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if finished or others:
        axes.legend(loc="lower right")
    return figure


@mpl.rc_context(STYLE)
def importance_figure(shares: Mapping[str, float]) -> Figure:
    """Draw the share of each key, the greatest on top.

    Args:
        shares: (P,), key to a share, in falling order.
    """
    figure = Figure(figsize=(FIGURE_INCHES[0], 0.9 + 0.32 * len(shares)))
    axes = figure.add_subplot(xlabel="share of the AUC's variance")
    heights = np.arange(len(shares))[::-1]
    values = np.array(list(shares.values()))
    for height, value in zip(heights, values, strict=True):
        axes.plot([0, value], [height] * 2, color=BLUE, label="_importance", linewidth=2)
    dots = axes.scatter(values, heights, s=36, color=BLUE, label="importance", zorder=3)
    note_points(dots, list(shares))
    axes.set_yticks(heights, list(shares))
    axes.set_ylim(-0.6, len(shares) - 0.4)
    axes.set_xlim(0, 1.05 * max(*values, 0.1))
    axes.grid(visible=False, axis="y")
    return figure


@mpl.rc_context(STYLE)
def value_figure(
    key: str, values: Sequence[Any], aucs: Sequence[float], *, order: Sequence[Any] | None,
    is_log: bool = False,
) -> Figure:  # fmt: skip
    """Draw the AUC of finished trials against a key's value.

    Args:
        key: The name of the axis.
        values: (T,).
        aucs: (T,), float.
        order: All choices of a key that has no range.
        is_log: Whether the axis is logarithmic.
    """
    figure = Figure(figsize=FIGURE_INCHES)
    axes = figure.add_subplot(xlabel=key, ylabel="AUC")
    places = list(values) if order is None else [list(order).index(value) for value in values]
    dots = axes.scatter(places, aucs, s=22, color=BLUE, label="finished trials")
    note_points(dots, [short(value) if isinstance(value, float) else str(value)
                       for value in values])  # fmt: skip
    if order is not None:
        axes.set_xticks(range(len(order)), [str(each) for each in order])
        axes.set_xlim(-0.5, len(order) - 0.5)
    elif is_log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: short(place)))
        axes.xaxis.set_minor_formatter("")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    return figure
