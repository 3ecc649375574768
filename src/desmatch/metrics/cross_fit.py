"""Figures of what was fitted, on rows it was not fitted on.

Shapes: B rows (pairs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable


def halve(groups: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Deal whole components to two halves of as many components.

    Args:
        groups: (B,), int, each row's component.
        rng: Decides which component goes where.

    Returns:
        (B,), int, 0 or 1.
    """
    names, component = np.unique(groups, return_inverse=True)
    return (rng.permutation(len(names))[component] >= len(names) / 2).astype(np.int64)


def cross_fit(
    parts: np.ndarray, fit_and_apply: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return for each part what a fit on all other parts gives.

    Args:
        parts: (B,), int, two parts or more.
        fit_and_apply: Takes two masks (B,), bool, of the rows to fit on and of those to apply to,
            and returns one value for each of the latter.

    Returns:
        (B,), float.

    Raises:
        ValueError: There is one part only.
    """
    names = np.unique(parts)
    if len(names) < 2:
        raise ValueError("cross-fitting needs two parts or more, got 1")
    values = np.empty(len(parts))
    for name in names:
        here = parts == name
        values[here] = fit_and_apply(~here, here)
    return values


def can_cross_fit(labels: np.ndarray, parts: np.ndarray) -> bool:
    """Return whether there are two parts or more, and the others of each show both labels.

    Args:
        labels: (B,), int, 0 or 1.
        parts: (B,), int.
    """
    names = np.unique(parts)
    return len(names) > 1 and all(len(np.unique(labels[parts != name])) == 2 for name in names)
