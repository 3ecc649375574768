"""Pairs laid end to end in rows of one length, so that hardly a cell is padding.

Shapes: B pairs, R rows of W cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROW_LENGTHS = (56, 60, 64, 68, 72)
"""Cells of a row unless a pair is longer; attention costs what is inside a row."""


class Packed(NamedTuple):
    """Where each pair lies.

    Attributes:
        starts: (B,), int64, first cell of each pair in the flattened (R * W,).
        num_rows: R.
        row_length: W.
    """

    starts: NDArray[np.int64]
    num_rows: int
    row_length: int

    @property
    def num_cells(self) -> int:
        """R * W."""
        return self.num_rows * self.row_length


def pack_tightly(
    lengths: NDArray[np.int64], *, row_lengths: tuple[int, ...] = ROW_LENGTHS
) -> Packed:
    """Lay pairs into rows of that length which leaves the fewest cells empty; see `pack`."""
    packings = [pack(lengths, row_length=each) for each in row_lengths]
    return min(packings, key=lambda packed: packed.num_cells)


TILE = 16
"""Cells that a processor's products take at a time; attention over other rows costs twice."""

UNEVEN_COST = 1.1
"""What a cell of a row of no whole tiles costs, beside one of a row of whole tiles."""


def pack_for_scoring(lengths: NDArray[np.int64]) -> Packed:
    """Lay pairs of like lengths into rows as long as the longest, or of whole tiles; see `pack`.

    Args:
        lengths: (B,), cells of each pair.
    """
    longest = int(lengths.max(initial=1))
    tiles = -(-longest // TILE)
    row_lengths = {longest, *(TILE * each for each in range(tiles, tiles + 4))}
    packings = [pack(lengths, row_length=each) for each in sorted(row_lengths)]
    return min(packings, key=_cost)


def _cost(packed: Packed) -> float:
    return packed.num_cells * (UNEVEN_COST if packed.row_length % TILE else 1.0)


def pack(lengths: NDArray[np.int64], *, row_length: int) -> Packed:
    """Lay pairs into rows, longest first, each into the fullest row that still takes it.

    Best fit decreasing needs at most 11/9 of the fewest rows (Johnson, 1974). Rows with the same
    room are interchangeable, so a pair costs the look-up of the lowest bit in a number whose bits
    are the rooms on offer.

    Args:
        lengths: (B,), cells of each pair.
        row_length: W, at least; a longer pair makes all rows as long as it is.
    """
    width = max(row_length, int(lengths.max(initial=1)))
    rows_by_room: list[list[int]] = [[] for _ in range(width + 1)]
    offered = 0  # bit k: some row has room for k cells
    starts = np.empty(len(lengths), np.int64)
    num_rows = 0
    for pair in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[pair])
        fitting = offered >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = rows_by_room[room].pop()
            offered ^= (not rows_by_room[room]) << room
        else:
            room, row = width, num_rows
            num_rows += 1
        starts[pair] = row * width + width - room
        rows_by_room[room - length].append(row)
        offered |= 1 << (room - length)
    return Packed(starts, num_rows, width)
