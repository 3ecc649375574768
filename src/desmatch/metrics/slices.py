"""The AUC of parts of the rows: where a model is good, and where it is not.

Shapes: B rows (pairs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from desmatch.metrics.intervals import bootstrap_auc
from desmatch.metrics.roc import roc_auc

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST_ROWS = 30
"""A slice of fewer rows gets no interval."""


class RowSlice(NamedTuple):
    """Some of the rows.

    Attributes:
        name: What they are told apart by, such as `length`.
        value: What they have of it, such as `5 to 9`.
        mask: (B,), bool.
    """

    name: str
    value: str
    mask: np.ndarray


def quantile_slices(name: str, values: np.ndarray, *, num_slices: int = 5) -> list[RowSlice]:
    """Cut rows into slices of rising values, about as many rows in each.

    Equal values stay together, so there are fewer slices where few values are distinct.

    Args:
        name: Of the slices.
        values: (B,), float.
        num_slices: Largest number of slices.
    """
    distinct, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    rows_up_to = np.cumsum(counts)[:-1]  # a cut lies behind one of these values
    targets = np.arange(1, num_slices) * len(values) / num_slices
    nearest = [int(np.argmin(np.abs(rows_up_to - each))) for each in targets if len(rows_up_to)]
    cuts = np.unique(np.array(nearest, np.int64))
    part = np.searchsorted(cuts, place, side="left")
    starts, ends = np.concatenate([[0], cuts + 1]), np.concatenate([cuts, [len(distinct) - 1]])
    return [
        RowSlice(name, _range_text(distinct[start], distinct[end]), part == number)
        for number, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]


def value_slices(name: str, values: np.ndarray) -> list[RowSlice]:
    """Return a slice for each distinct value; true and false are called yes and no.

    Args:
        name: Of the slices.
        values: (B,), bool or int.
    """
    texts = {True: "yes", False: "no"} if values.dtype == bool else {}
    distinct = np.unique(values).tolist()
    return [RowSlice(name, texts.get(each, str(each)), values == each) for each in distinct]


def slice_figures(
    slices: Sequence[RowSlice],
    labels: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    *,
    rng: np.random.Generator,
    num_samples: int = 200,
) -> list[dict[str, Any]]:
    """Return rows, share of positives, AUC and its interval of each slice.

    The AUC is none where a label is missing; the interval too where there are few rows.

    Args:
        slices: Of the rows.
        labels: (B,), int, 0 or 1.
        scores: (B,), float.
        groups: (B,), int, components, which the bootstrap draws.
        rng: Draws the components.
        num_samples: Bootstrap samples of each slice.
    """
    figures = []
    for each in slices:
        chosen = labels[each.mask], scores[each.mask], groups[each.mask]
        num_rows = len(chosen[0])
        has_auc = len(np.unique(chosen[0])) == 2
        has_interval = has_auc and num_rows >= LEAST_ROWS
        figures.append({
            "slice": each.name,
            "value": each.value,
            "rows": num_rows,
            "positives": float(chosen[0].mean()) if num_rows else None,
            "auc": roc_auc(*chosen[:2]) if has_auc else None,
            "interval": [*bootstrap_auc(*chosen, rng=rng, num_samples=num_samples)]
            if has_interval
            else None,
        })  # fmt: skip
    return figures


def _range_text(low: float, high: float) -> str:
    texts = [f"{value:.0f}" if float(value).is_integer() else f"{value:.3g}"
             for value in (low, high)]  # fmt: skip
    return texts[0] if texts[0] == texts[1] else " to ".join(texts)
