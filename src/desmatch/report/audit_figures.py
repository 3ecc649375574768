"""Figures of an audit: frequencies by rank, and what hiding rare ids costs.

Shapes: P points of a curve, K treatments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from desmatch.report.svg import BLUE, INK, ORANGE, STYLE, note_points, short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIGURE_INCHES = (4.6, 3.0)


@mpl.rc_context(STYLE)
def frequency_figure(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Draw the share of all occurrences that each rank has, on logarithmic axes.

    Args:
        curves: Name to `rank` and `share`, each (P,), both above 0.
    """
    figure = Figure(figsize=FIGURE_INCHES)
    axes = figure.add_subplot(xlabel="rank", ylabel="share of occurrences")
    for (name, curve), color in zip(curves.items(), (BLUE, ORANGE), strict=False):
        axes.plot(curve["rank"], curve["share"], color=color, label=name)
    for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        scale("log")
        axis.set_major_formatter(FuncFormatter(lambda place, _: short(place)))
        axis.set_minor_formatter("")
    return figure


@mpl.rc_context(STYLE)
def cost_figure(lines: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the difference in AUC of each treatment with its interval.

    Args:
        lines: (K,), with `name`, `shared_occurrences`, `difference` and `difference_interval`.
    """
    figure = Figure(figsize=FIGURE_INCHES)
    axes = figure.add_subplot(
        xlabel="occurrences that share a number, per cent", ylabel="difference in AUC"
    )
    places = [100 * line["shared_occurrences"] for line in lines]
    axes.axhline(0, color=INK, linewidth=0.8)
    for place, line in zip(places, lines, strict=True):
        axes.plot([place] * 2, line["difference_interval"], color=BLUE, alpha=0.5,
                  label="_treatments")  # fmt: skip
    dots = axes.scatter(places, [line["difference"] for line in lines], s=26, color=BLUE,
                        label="treatments", zorder=3)  # fmt: skip
    note_points(dots, [line["name"] for line in lines])
    axes.xaxis.set_major_locator(MaxNLocator(5))
    return figure
