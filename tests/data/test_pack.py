from __future__ import annotations

from functools import cache

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from desmatch.data.pack import (
    ROW_LENGTHS,
    TILE,
    UNEVEN_COST,
    pack,
    pack_for_scoring,
    pack_tightly,
)

any_lengths = (
    st.lists(st.integers(1, 80), max_size=60)
    .map(np.array)
    .map(lambda lengths: lengths.astype(np.int64))
)


def best_fit_decreasing(lengths, width):
    """The slow twin: look through all rows; of rows with equal room the one that came to it last.

    Returns starts in the flattened rows, and the number of rows.
    """
    rows = []  # [room, time of the last change]
    starts = {}
    for time, pair in enumerate(sorted(range(len(lengths)), key=lambda pair: -lengths[pair])):
        fitting = [row for row in rows if row[0] >= lengths[pair]]
        if not fitting:
            fitting = [[width, time]]
            rows.append(fitting[0])
        best = min(fitting, key=lambda row: (row[0], -row[1]))
        at = next(number for number, row in enumerate(rows) if row is best)
        starts[pair] = (at + 1) * width - best[0]
        best[:] = best[0] - lengths[pair], time
    return [starts[pair] for pair in range(len(lengths))], len(rows)


def fewest_rows(lengths, width):
    """The optimum, by trying every row for every pair."""

    @cache
    def more_rows(pair, rooms):
        if pair == len(lengths):
            return 0
        length = lengths[pair]
        new_row = 1 + more_rows(pair + 1, tuple(sorted((*rooms, width - length))))
        options = [
            more_rows(pair + 1, tuple(sorted((*rooms[:at], room - length, *rooms[at + 1 :]))))
            for at, room in enumerate(rooms)
            if room >= length
        ]
        return min([new_row, *options])

    return more_rows(0, ())


@given(lengths=any_lengths, row_length=st.integers(1, 64))
def test_pairs_do_not_overlap_and_lie_inside_one_row(lengths, row_length):
    packed = pack(lengths, row_length=row_length)
    used = np.zeros(packed.num_rows * packed.row_length, int)
    for start, length in zip(packed.starts, lengths, strict=True):
        used[start : start + length] += 1
        assert start // packed.row_length == (start + length - 1) // packed.row_length
    assert used.max(initial=0) <= 1
    assert used.sum() == lengths.sum()


@given(lengths=any_lengths, row_length=st.integers(1, 64))
def test_placement_is_that_of_best_fit_decreasing(lengths, row_length):
    packed = pack(lengths, row_length=row_length)
    starts, num_rows = best_fit_decreasing(lengths.tolist(), packed.row_length)
    assert packed.starts.tolist() == starts
    assert packed.num_rows == num_rows


@given(lengths=st.lists(st.integers(1, 20), max_size=9))
def test_rows_are_at_most_eleven_ninths_of_the_fewest(lengths):
    packed = pack(np.array(lengths, np.int64), row_length=20)
    fewest = fewest_rows(tuple(sorted(lengths, reverse=True)), 20)
    assert fewest <= packed.num_rows <= (11 * fewest + 6) / 9


@given(lengths=any_lengths)
def test_no_two_rows_could_be_one(lengths):
    packed = pack(lengths, row_length=64)
    filled = np.bincount(
        packed.starts // packed.row_length, weights=lengths, minlength=packed.num_rows
    )
    assert np.sort(filled)[:2].sum() > packed.row_length or packed.num_rows < 2


def test_a_longer_pair_widens_all_rows():
    assert pack(np.array([3, 64]), row_length=64).row_length == 64
    packed = pack(np.array([3, 69, 66]), row_length=64)
    assert (packed.row_length, packed.num_rows) == (69, 2)
    assert packed.starts.tolist() == [69 + 66, 0, 69]


def test_no_pairs_need_no_rows():
    packed = pack(np.empty(0, np.int64), row_length=64)
    assert (packed.num_rows, packed.row_length, len(packed.starts)) == (0, 64, 0)


def num_cells(packed):
    return packed.num_rows * packed.row_length


@given(lengths=any_lengths)
def test_the_tightest_packing_is_one_of_them_and_none_has_fewer_cells(lengths):
    packings = [pack(lengths, row_length=each) for each in ROW_LENGTHS]
    tight = pack_tightly(lengths)
    assert num_cells(tight) == min(num_cells(each) for each in packings)
    same = next(each for each in packings if num_cells(each) == num_cells(tight))
    np.testing.assert_array_equal(tight.starts, same.starts)


def test_short_texts_leave_hardly_any_padding():
    rng = np.random.default_rng(0)
    fills = []
    for _ in range(20):
        lengths = np.clip(rng.lognormal(2.8, 0.4, 64).astype(np.int64), 5, 64)
        fills.append(lengths.sum() / num_cells(pack_tightly(lengths)))
    assert np.mean(fills) > 0.95


@given(lengths=any_lengths)
def test_rows_for_scoring_are_of_whole_tiles_unless_that_wastes_a_tenth(lengths):
    packed = pack_for_scoring(lengths)
    longest = max([1, *lengths.tolist()])
    as_long = pack(lengths, row_length=longest)
    in_tiles = [
        num_cells(pack(lengths, row_length=each))
        for each in range(TILE, longest + 4 * TILE, TILE)
        if each >= longest
    ]
    if packed.row_length % TILE:
        assert packed.row_length == longest
        assert min(in_tiles) >= UNEVEN_COST * num_cells(as_long)
    else:
        assert num_cells(packed) == min(in_tiles)
        assert num_cells(packed) <= UNEVEN_COST * num_cells(as_long)
    np.testing.assert_array_equal(packed.starts, pack(lengths, row_length=packed.row_length).starts)
