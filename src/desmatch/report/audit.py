"""The page of how exposed numbered pairs are, and its figures as JSON: shares and counts alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from desmatch.report.audit_figures import cost_figure, frequency_figure
from desmatch.report.drawings import Drawn
from desmatch.report.html import render, share, show, signed
from desmatch.report.page import figures_json
from desmatch.runs import write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

PAGE = "audit.html"
MUCH = 0.2
"""Of occurrences placed right, the share from which numbers hide little."""


def write_audit(path: Path, figures: Mapping[str, Any]) -> Path:
    """Write the page of an audit, and a file of its figures beside it.

    Args:
        path: The page.
        figures: As `desmatch.publish.audit.audit` gives them.

    Returns:
        The path of the figures.
    """
    shown = show(draw_audit(figures))
    steps = audit_steps(figures)
    json_path = path.with_suffix(".json")
    write_json(json_path, {**figures, "next_steps": steps, "figures": figures_json(shown)})
    write_text(path, render(PAGE, plotted=shown, steps=steps, json_name=json_path.name, **figures))
    return json_path


def draw_audit(figures: Mapping[str, Any]) -> Iterator[Drawn]:
    """Yield the plots of an audit, as far as its figures suffice for them."""
    yield Drawn(
        "frequencies",
        "Frequencies by rank",
        "Where a curve is steep, a rank has few candidates; where the two lie on each other, the "
        "corpus knows what to expect.",
        frequency_figure(figures["curves"]),
        "attack",
    )
    measured = [line for line in figures["treatments"] if line.get("auc") is not None]
    if len(measured) > 1:
        yield Drawn(
            "cost",
            "Cost in AUC",
            "Against the files as they are, on the same rows; an interval that holds 0 shows no "
            "cost.",
            cost_figure(measured),
            "treatments",
        )


def audit_steps(figures: Mapping[str, Any]) -> list[str]:
    """Return what the figures of an audit say to do next."""
    steps = []
    best = placed_right(figures)
    if best is None:
        steps.append(
            "Measure the attack: `--key FILE`, and `--public-counts JSON` or `--public-pairs FILE`."
        )
    elif figures["neighbours"] is None:
        steps.append(
            "Matching ranks is the weakest attack; `--public-pairs FILE`, texts like yours, "
            "measures one by neighbours."
        )
    if best is not None and best >= MUCH:
        steps.append(
            f"An attacker reads {share(best)} of the occurrences: treat these files as the texts "
            "themselves, and give them to those alone who might have the texts."
        )
    if outside := figures["data"]["ids_not_in_key"]:
        steps.append(
            f"{outside:,} ids are not in the key, and count as placed wrong: name the key of all "
            "these files."
        )
    steps.extend(_rare_steps(figures))
    lone = next(line for line in figures["crowd"] if line["kind"] == "texts")
    steps.append(
        f"{lone['in_1']:,} of {lone['distinct']:,} texts stand in one row only: whoever knows such "
        "a text finds its row by its length and its repeated tokens. No option hides that."
    )
    return steps


def placed_right(figures: Mapping[str, Any]) -> float | None:
    """Return the greatest share of all occurrences that an attack places right, if any was made."""
    if figures["attack"] is None:
        return None
    by_rank: float = figures["attack"]["occurrences"]
    found = figures["neighbours"]
    if found is None:
        return by_rank
    return float(
        max(by_rank, found["share_of_occurrences"] * found["by_neighbours"]["occurrences"])
    )


def _rare_steps(figures: Mapping[str, Any]) -> Iterator[str]:
    """Name the mildest treatment that leaves no row with an id of its own."""
    if not figures["rows_with_lone_id"]:
        return
    hiding = [line for line in figures["treatments"] if not line["rows_with_lone_id"]]
    known = f"{figures['rows_with_lone_id']:,} rows hold an id that no other row has"
    if not hiding:
        yield f"{known}, and no treatment below ends that: more texts, or fewer, might."
        return
    cost = ""
    if hiding[0].get("auc") is not None:
        low, high = hiding[0]["difference_interval"]
        cost = f", at {signed(hiding[0]['difference'])} AUC ({signed(low)} to {signed(high)})"
    yield f"{known}: `desmatch anonymize … {hiding[0]['name']}` leaves none{cost}."
