"""The table of an ensemble: its members and the ways to combine them, beside the best member."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from desmatch.report.html import signed
from desmatch.report.tables import Row, finite, interval, mapping, mappings, with_bars

if TYPE_CHECKING:
    from collections.abc import Mapping


def standing_rows(validation: Mapping[str, Any]) -> list[Row]:
    """Return the AUC of each member and each combination; `cells` has the paired difference."""
    rows = []
    for each in mappings(validation.get("standings")):
        name = str(each.get("name") or "")
        is_member = bool(each.get("is_member"))
        note = "member" if is_member else ""
        if not is_member and name == validation.get("combine"):
            note = "what is submitted"
        cells = {**each, "difference_interval": interval(each.get("difference_interval"))}
        rows.append(
            Row(name, finite(each.get("auc")), interval(each.get("interval")), note, cells=cells)
        )
    return with_bars(rows)


def selection_text(validation: Mapping[str, Any]) -> str:
    """Return what greedy selection takes of each member, and what of its gain is real."""
    selection = mapping(validation.get("selection"))
    shares = {name: finite(share) for name, share in mapping(selection.get("shares")).items()}
    ends = interval(selection.get("interval"))
    if not shares or ends is None:
        return ""
    taken = ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share)
    return (
        f"Greedy selection takes {taken}: over the best member it seems to gain "
        f"{signed(finite(selection.get('selected_gain')))}, and "
        f"{signed(finite(selection.get('honest_gain')))} ({signed(ends[0])} to {signed(ends[1])}) "
        "where neither was chosen on the rows it is measured on."
    )
