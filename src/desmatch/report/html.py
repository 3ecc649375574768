"""Pages from templates: their words for numbers, their figures, and the policy they run under."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import ChainableUndefined, Environment, PackageLoader, Undefined
from markupsafe import Markup

from desmatch.report.svg import for_page
from desmatch.report.tables import finite

if TYPE_CHECKING:
    from collections.abc import Iterable

    from desmatch.report.drawings import Drawn
    from desmatch.report.svg import Series

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
SCRIPT = "page.js"
CODE = re.compile(r"(`[^`]+`|--[a-z][\w.-]*\w(?: \d+(?:\.\d+)?)?)")
"""Backticks, or an option with the number behind it."""


class Shown(NamedTuple):
    """A figure as the page holds it."""

    drawn: Drawn
    svg: Markup
    series: list[Series]

    def for_script(self) -> list[dict[str, Any]]:
        """Return what the page's script needs."""
        return [each.for_script() for each in self.series]


def show(drawn: Iterable[Drawn]) -> list[Shown]:
    """Return the figures in the form of the page."""
    shown = []
    for each in drawn:
        svg, series = for_page(each.figure, name=each.name, title=each.title)
        shown.append(Shown(each, Markup(svg), series))  # safe: matplotlib and to_svg escape texts
    return shown


def render(template: str, **values: Any) -> str:  # noqa: ANN401 - what the template shows
    """Return a page of one of the templates, with the policy that lets its one script run."""
    environment = _environment()
    script = environment.get_template(SCRIPT).render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template(template)
    return page.render(script=Markup(script), script_digest=digest, **values)  # safe: our own


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
    environment.filters.update(
        number=number,
        share=share,
        chance=chance,
        signed=signed,
        raw=raw,
        sentence=sentence,
        coded=coded,
    )
    return environment


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
    return f"{value:,.{0 if isinstance(value, int) else digits}f}".replace("-", MINUS)


def share(value: Any) -> str:  # noqa: ANN401 - any value of a card
    """Return a share in [0, 1] as per cent, `12.34 %`, a dash for a missing one."""
    if isinstance(value, int | float) and not is_missing(value):
        return f"{100 * value:.2f}\N{NO-BREAK SPACE}%"
    return number(value)


def signed(value: Any, digits: int = 4) -> str:  # noqa: ANN401 - any value of a card
    """Return a difference with its sign, `+0.0123`; a dash for a missing one."""
    if is_missing(value) or not isinstance(value, int | float):
        return number(value)
    return f"{value:+.{digits}f}".replace("-", MINUS)


def raw(value: Any) -> str:  # noqa: ANN401 - any value of a card
    """Return a number for the script to sort by; nothing for a missing one."""
    found = finite(value)
    return "" if found is None else repr(found)


def chance(value: float) -> str:
    """Return a chance as per cent; a bootstrap does not know what lies beyond 99.9 of them."""
    if value < 0.001:
        return "below 0.1\N{NO-BREAK SPACE}%"
    return (
        f"{100 * value:.1f}\N{NO-BREAK SPACE}%"
        if value <= 0.999
        else "above 99.9\N{NO-BREAK SPACE}%"
    )


def sentence(text: str) -> str:
    """Return words as a sentence, with a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def coded(text: object) -> Markup:
    """Return words with what one would type, `in backticks` or an --option, as code."""
    parts = CODE.split(number(text))
    return Markup("").join(
        Markup("<code>{}</code>").format(part.strip("`")) if place % 2 else part
        for place, part in enumerate(parts)
    )
