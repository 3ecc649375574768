"""A figure as an <svg> element, as a PNG, and as the points that a pointer may ask for.

The points are read from the artists that were drawn, so that what the page says under the pointer
cannot differ from what it shows. Only artists with a label become a series; an artist labelled `_x`
belongs to the series `x` (a line through its dots), and a dotted line has no points of its own.

Shapes: P points of a series.
"""

from __future__ import annotations

import re
from html import escape
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.patches import StepPatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#7b7b7b"
BLUE, ORANGE, GREEN, PURPLE = "#2f7ed0", "#d9691c", "#22936a", "#8a63c7"
POINTS_PER_INCH = 72
NOTES = "notes_of_points"
"""Name under which an artist keeps the words about its points."""

STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.prop_cycle": f"cycler(color={[BLUE, ORANGE, GREEN, PURPLE]})",
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.dpi": POINTS_PER_INCH,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "grid.alpha": 0.22,
    "grid.color": INK,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.color": INK,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
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

PAGE_COLORS = {BLUE: "var(--blue)", ORANGE: "var(--orange)", GREEN: "var(--green)",
               PURPLE: "var(--purple)", INK: "currentColor"}  # fmt: skip
"""The colours of a figure that a page draws in its own, light or dark."""


class Series(NamedTuple):
    """What one entry of a legend stands for."""

    label: str
    keys: tuple[str, ...]
    """Ids of its groups in the SVG."""
    color: str
    is_dotted: bool
    x_name: str
    y_name: str
    x: list[float]
    """(P,), as drawn."""
    y: list[float]
    """(P,), as drawn; of stacked bars the height of the bar alone."""
    places: list[tuple[float, float]]
    """(P,), where each point lies in the SVG, in points from its upper left corner."""
    frame: tuple[float, float]
    """Where its axes begin and end in the SVG, downwards."""
    x_texts: list[str]
    """(P,), x in words."""
    notes: list[str]
    """(P,) more about each point; or empty."""

    def for_script(self) -> dict[str, Any]:
        """Return what the page's script needs."""
        texts = zip(self.x_texts, map(short, self.y), strict=True)
        notes = self.notes or [""] * len(self.places)
        return {
            "label": self.label,
            "keys": self.keys,
            "names": [self.x_name, self.y_name],
            "frame": [round(each, 1) for each in self.frame],
            "points": [[round(left, 1), round(top, 1), *words, note]
                       for (left, top), words, note in zip(self.places, texts, notes, strict=True)],
        }  # fmt: skip

    def for_json(self) -> dict[str, Any]:
        """Return the figures alone, without places."""
        return {"label": self.label, "x_name": self.x_name, "y_name": self.y_name,
                "x": self.x, "y": self.y}  # fmt: skip


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


def for_page(figure: Figure, *, name: str, title: str) -> tuple[str, list[Series]]:
    """Return a figure as SVG in the page's own colours, without its legend, and its series.

    Args:
        figure: Drawn under STYLE.
        name: Different on each figure of a page; ids of the series' groups begin with it.
        title: For readers who do not see it.
    """
    legends = [legend for axes in figure.axes if (legend := axes.get_legend())]
    artists = _labelled(figure, name)
    for legend in legends:
        legend.set_visible(False)
    svg = to_svg(figure, title=title)
    for legend in legends:
        legend.set_visible(True)
    for color, text in PAGE_COLORS.items():
        svg = svg.replace(color, text)
    height = figure.get_size_inches()[1] * POINTS_PER_INCH
    series = [_series(axes, label, group, height) for (axes, label), group in artists.items()]
    return svg, series


def note_points(artist: Artist, notes: list[str]) -> None:
    """Keep more words about each point of an artist, for the pointer.

    Args:
        artist: With a label.
        notes: (P,).
    """
    vars(artist)[NOTES] = notes


def short(value: float) -> str:
    """Return a number in as many digits as a reader wants: `1,234`, `0.8731`, `1.2e-05`."""
    if value == round(value) and abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def _labelled(figure: Figure, name: str) -> dict[tuple[Axes, str], list[Any]]:
    """Return the artists of each series, and give each the id of its group in the SVG."""
    found: dict[tuple[Axes, str], list[Any]] = {}
    for axes in figure.axes:
        artists = [
            each
            for each in axes.get_children()
            if isinstance(each, Line2D | StepPatch | PathCollection)
        ]
        for artist in artists:
            label = str(artist.get_label())
            if not label.startswith("_"):
                found.setdefault((axes, label), []).append(artist)
        for artist in artists:  # after those they belong to
            found.get((axes, str(artist.get_label())[1:]), []).append(artist)
    for place, group in enumerate(found.values()):
        for part, artist in enumerate(group):
            artist.set_gid(f"{name}-{place}-{part}")
    return found


def _series(axes: Axes, label: str, artists: list[Any], height: float) -> Series:
    first = artists[0]
    is_dotted = isinstance(first, Line2D) and first.get_linestyle() == ":"
    points = (
        [] if is_dotted else [point for point in _points(first) if np.isfinite(point[:3]).all()]
    )
    places = axes.transData.transform(np.array([point[:2] for point in points]).reshape(-1, 2))
    return Series(
        label=label,
        keys=tuple(artist.get_gid() for artist in artists),
        color=PAGE_COLORS.get(_color(first), _color(first)),
        is_dotted=is_dotted,
        x_name=_plain(axes.get_xlabel() or _shared_label(axes)),
        y_name=_plain(axes.get_ylabel()),
        x=[float(x) for x, *_ in points],
        y=[float(value) for _, _, value, _ in points],
        places=[(float(left), height - float(bottom)) for left, bottom in places],
        frame=(height - axes.bbox.y1, height - axes.bbox.y0),
        x_texts=[text for *_, text in points],
        notes=vars(first).get(NOTES, []),
    )


def _points(artist: Any) -> Iterator[tuple[float, float, float, str]]:  # noqa: ANN401 - an artist
    """Yield (x, y, value, x in words) of what an artist draws."""
    if isinstance(artist, StepPatch):
        tops, edges, baseline = artist.get_data()
        heights = tops - (0 if baseline is None else baseline)
        for low, high, top, value in zip(edges[:-1], edges[1:], tops, heights, strict=True):
            yield (low + high) / 2, top, value, _bin_text(low, high)
    else:
        pairs = artist.get_xydata() if isinstance(artist, Line2D) else artist.get_offsets()
        for x, y in np.asarray(pairs, dtype=float):
            yield x, y, y, short(x)


def _bin_text(low: float, high: float) -> str:
    """Return the edges of a bin; of one between half numbers, the whole numbers inside."""
    if low % 1 == high % 1 == 0.5:
        first, last = low + 0.5, high - 0.5
        return short(first) if first == last else f"{short(first)} to {short(last)}"
    return f"{short(low)} to {short(high)}"


def _color(artist: Any) -> str:  # noqa: ANN401 - an artist
    if isinstance(artist, Line2D):
        return str(to_hex(artist.get_color()))
    if isinstance(artist, PathCollection):
        return str(to_hex(artist.get_facecolor()[0]))
    return str(to_hex(artist.get_facecolor() if artist.get_fill() else artist.get_edgecolor()))


def _plain(label: str) -> str:
    """Return the label of an axis without what it says in brackets."""
    return re.sub(r"\s*\(.*\)$", "", label)


def _shared_label(axes: Axes) -> str:
    """Return the label of the x axis that twin axes share."""
    labels = [other.get_xlabel() for other in axes.get_shared_x_axes().get_siblings(axes)]
    return next(filter(None, labels), "")
