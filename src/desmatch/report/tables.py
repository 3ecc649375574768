"""The tables of a page: parts of a card as rows of words, figures and bars.

Any key of a card may be missing or null: what is not a finite number becomes None, an interval
without both ends becomes None, and a table without a row is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

from desmatch.report.words import (
    AUC_ROWS,
    CALIBRATIONS,
    COUNTS,
    DRAWN_SIZES,
    FEATURE_NAMES,
    GRAPH_NAMES,
    HEADLINES,
    OTHER_ROWS,
    PLACED,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Pair = tuple[float, float]

WIDE = 0.1
"""A table whose figures span more has a scale in steps of 0.05, any other one in steps of 0.01."""


class Headline(NamedTuple):
    """The figure on the first line."""

    name: str
    value: float | None
    interval: Pair | None
    why: str


class Bar(NamedTuple):
    """Where a figure and its interval lie on the scale of their table, in per cent of it."""

    left: float
    width: float
    at: float | None
    low: float
    high: float


class Row(NamedTuple):
    """A figure in a table."""

    name: str
    value: float | None
    interval: Pair | None = None
    note: str = ""
    bar: Bar | None = None
    cells: Mapping[str, Any] = {}
    """Further figures, by their keys in the card."""
    digits: int = 4
    """Of the value."""


def headline(validation: Mapping[str, Any]) -> Headline:
    """Return the figure that a run recommends; of an older run the AUC that its interval is of."""
    given = mapping(validation.get("headline"))
    if finite(given.get("value")) is not None:
        name = str(given.get("name") or "auc")
        return Headline(
            HEADLINES.get(name, name),
            finite(given.get("value")),
            interval(given.get("interval")),
            str(given.get("why") or ""),
        )
    key = "expected_test_auc" if finite(validation.get("expected_test_auc")) else "auc"
    found = interval(validation.get("interval")) or interval(validation.get("validation_interval"))
    return Headline(HEADLINES[key], finite(validation.get(key)), found, "")


def headline_bar(validation: Mapping[str, Any]) -> Bar | None:
    """Return where the first line's figure and its interval lie on a scale of their own."""
    found = headline(validation)
    if found.value is None or found.interval is None:
        return None
    return bar(found.value, found.interval, *scale([found.value, *found.interval]))


def auc_rows(validation: Mapping[str, Any]) -> list[Row]:
    """Return the areas under curves, with their intervals where there are some."""
    rows: list[Row] = []
    for key, interval_keys, name, note in AUC_ROWS:
        found = [ends for each in interval_keys if (ends := interval(validation.get(each)))]
        is_known = finite(validation.get(key)) is not None
        if is_known and (found or not any(row.value == validation[key] for row in rows)):
            ends = found[0] if found else None
            rows.append(Row(name, finite(validation.get(key)), ends, note))
    return with_bars(rows)


def other_rows(validation: Mapping[str, Any]) -> list[Row]:
    """Return all figures of the validation that have no table of their own."""
    found = [
        Row(name, finite(validation.get(key)), note=note, digits=0 if key in COUNTS else 4)
        for key, name, note in OTHER_ROWS
    ]
    unknown = [
        Row(key.replace("_", " "), finite(value))
        for key, value in validation.items()
        if key not in PLACED
    ]
    return [row for row in [*found, *unknown] if row.value is not None]


def fold_rows(validation: Mapping[str, Any]) -> list[Row]:
    """Return the AUC of each fold."""
    return with_bars(
        Row(f"fold {number_or_dash(each.get('fold'))}", finite(each.get("auc")), cells=each)
        for each in mappings(validation.get("folds"))
    )


def round_rows(card: Mapping[str, Any]) -> list[Row]:
    """Return the AUC of the held-out rows before the first and after each round of pseudo-labels.

    `cells["labelled"]` says how many rows a round gave a label to.
    """
    rows = []
    for each in mappings(card.get("pseudo_labels")):
        given = [finite(each.get(f"pseudo_{name}")) for name in ("positives", "negatives")]
        number = each.get("round")
        name = f"round {number_or_dash(number)}" if number else "before the first round"
        cells = {**each, "labelled": sum(count for count in given if count is not None)}
        note = "kept" if each.get("is_kept") else ""
        name = f"fold {number_or_dash(each.get('fold'))}, {name}"
        rows.append(Row(name, finite(each.get("roc_auc")), note=note, cells=cells))
    return with_bars(rows)


def slice_rows(validation: Mapping[str, Any]) -> list[Row]:
    """Return the AUC of each slice, its distance from the AUC of all rows in `cells["gap"]`."""
    whole = finite(validation.get("auc"))
    rows = []
    for each in mappings(validation.get("slices")):
        value = finite(each.get("auc"))
        gap = None if value is None or whole is None else value - whole
        if each.get("rows") == validation.get("rows"):
            continue  # all rows are no slice of them
        name = feature_name(each.get("slice"))
        rows.append(Row(name, value, interval(each.get("interval")), cells={**each, "gap": gap}))
    return with_bars(rows)


def order_rows(validation: Mapping[str, Any]) -> list[Row]:
    """Return what the order of a pair's texts changes."""
    order = mapping(validation.get("order"))
    names = (
        ("auc_forward", "AUC, a then b", ""),
        ("auc_backward", "AUC, b then a", ""),
        ("auc_mean", "AUC of the mean", "what is submitted"),
        ("mean_difference", "mean difference of the scores", ""),
        ("decision_flips", "share of rows on the other side of 0.5", ""),
    )
    rows = [Row(name, finite(order.get(key)), note=note) for key, name, note in names]
    return [row for row in rows if row.value is not None]


def threshold_rows(validation: Mapping[str, Any]) -> list[Row]:
    """Return accuracy and F1 with the threshold they were reported at."""
    names = {"accuracy": "accuracy", "f1": "F1"}
    return [
        Row(names.get(key, key), finite(each.get("value")), cells=each)
        for key, each in mapping(validation.get("threshold")).items()
        if isinstance(each, Mapping)
    ]


def calibration_rows(validation: Mapping[str, Any]) -> list[Row]:
    """Return the figures before and after each calibration."""
    given = mapping(validation.get("calibration"))
    return [
        Row(CALIBRATIONS.get(key, key), None, note=_temperature(each), cells=each)
        for key, each in given.items()
        if isinstance(each, Mapping)
    ]


def drift_rows(drift: Mapping[str, Any]) -> list[Row]:
    """Return the features that tell the test from the labelled rows, the plainest first.

    A bar is the distance of the feature's own AUC from one half, either way.
    """
    rows = []
    for each in mappings(drift.get("features")):
        auc = finite(each.get("auc"))
        width = 0.0 if auc is None else min(200 * abs(auc - 0.5), 100.0)
        rows.append(
            Row(
                feature_name(each.get("name")), auc, bar=Bar(0.0, width, None, 0.5, 1.0), cells=each
            )
        )
    return sorted(rows, key=lambda row: -(row.bar.width if row.bar else 0.0))


def graph_rows(graph: Mapping[str, Any]) -> list[Row]:
    """Return the figures of the query graph, those of nested tables by dotted names."""
    return [
        Row(GRAPH_NAMES.get(key, key.replace("_", " ").replace(".", ": ")), finite(value))
        for key, value in flat_values(graph)
        if finite(value) is not None and not key.startswith(DRAWN_SIZES)
    ]


def feature_name(key: object) -> str:
    """Return what a feature of the rows is called."""
    text = str(key or "")
    return FEATURE_NAMES.get(text, text.replace("_", " "))


def hardest_rows(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows the model is most wrong about, the nearest training rows with each."""
    return [
        {
            **each,
            "file": file_name(card, each.get("file")),
            "nearest": [
                {**near, "file": file_name(card, near.get("file"))}
                for near in mappings(each.get("nearest"))
            ],
        }
        for each in mappings(mapping(card.get("validation")).get("hardest"))
    ]


def file_name(card: Mapping[str, Any], file: object) -> str:
    """Return the name of a file of labelled rows, which rows know by its number."""
    if not isinstance(file, int):
        return str(file or "")
    paths = [str(each.get("path") or "") for each in mappings(card.get("data"))
             if each.get("role") == "train"]  # fmt: skip
    names = [PurePath(path).name for path in ", ".join(paths).split(", ")]
    return names[file] if 0 <= file < len(names) and names[file] else f"file {file}"


def with_bars(rows: Iterable[Row]) -> list[Row]:
    """Give each row its bar, all on one scale that holds every figure and interval."""
    rows = list(rows)
    values = [value for row in rows for value in (row.value, *(row.interval or ()))]
    known = [value for value in values if value is not None]
    if not known:
        return rows
    low, high = scale(known)
    return [row._replace(bar=bar(row.value, row.interval, low, high)) for row in rows]


def scale(values: Sequence[float]) -> Pair:
    """Return the round numbers that lie around the values."""
    step = 0.05 if max(values) - min(values) > WIDE else 0.01
    low, high = math.floor(min(values) / step), math.ceil(max(values) / step)
    return low * step, max(high, low + 1) * step


def bar(value: float | None, ends: Pair | None, low: float, high: float) -> Bar:
    """Return where a figure lies between `low` and `high`."""
    left, right = ends or (low, low)
    unit = 100 / (high - low)
    at = None if value is None else round((value - low) * unit, 2)
    return Bar(round((left - low) * unit, 2), round((right - left) * unit, 2), at, low, high)


def flat_values(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of every value of nested mappings."""
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from flat_values(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def finite(value: object) -> float | None:
    """Return a finite number as it is, and None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def interval(value: object) -> Pair | None:
    """Return two finite ends, or None."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        return None
    low, high = map(finite, value)
    return None if low is None or high is None else (low, high)


def mapping(value: object) -> Mapping[str, Any]:
    """Return a mapping as it is, and an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: object) -> Iterator[Mapping[str, Any]]:
    """Yield the mappings of a list, and nothing of anything else."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        yield from (each for each in value if isinstance(each, Mapping))


def number_or_dash(value: object) -> str:
    """Return a whole number as text, or a dash."""
    found = finite(value)
    return "\N{EN DASH}" if found is None else f"{found:.0f}"


def _temperature(calibration: Mapping[str, Any]) -> str:
    value = finite(calibration.get("temperature"))
    return "" if value is None else f"logits over {value:.3f}"
