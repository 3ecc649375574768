from __future__ import annotations

import weakref
from itertools import accumulate

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desmatch.errors import UserError
from desmatch.parts import Parts, cut


def table(first, stop):
    return pa.table({"x": pa.array(range(first, stop), pa.int64())})


def blocks(lengths):
    """Tables of these lengths that count on from each other."""
    first = 0
    for length in lengths:
        yield table(first, first + length)
        first += length


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 12))
def test_cutting_keeps_rows_and_order_and_asks_for_no_row_before_its_turn(lengths, num_rows):
    given_rows = 0

    def counted():
        nonlocal given_rows
        for each in blocks(lengths):
            given_rows += len(each)
            yield each

    rows, taken = [], 0
    for part in cut(counted(), num_rows):
        is_last = taken + len(part) == sum(lengths)
        assert len(part) == num_rows or (is_last and len(part) > 0)
        taken += len(part)
        assert is_last or given_rows == min(end for end in accumulate(lengths) if end >= taken)
        rows += part["x"].to_pylist()
    assert rows == list(range(sum(lengths)))


@pytest.mark.parametrize("num_rows", [1, 10, 150])
def test_cutting_holds_no_more_blocks_than_a_part_needs(num_rows):
    given_out = []

    def watched():
        for each in blocks([100] * 20):
            given_out.append(weakref.ref(each))
            yield each

    for _ in cut(watched(), num_rows):
        assert sum(each() is not None for each in given_out) <= 3
    assert len(given_out) == 20


def some_parts(folder, **job):
    return Parts(folder / "out.tsv", {"input": "x", **job}, num_rows=5, part_rows=2)


def test_parts_come_back_in_order_and_a_broken_one_is_not_there(tmp_path):
    parts = some_parts(tmp_path)
    parts.begin(may_resume=False)
    for number in (2, 0, 1):
        assert not parts.has(number)
        parts.write(number, table(2 * number, min(2 * number + 2, 5)))
        assert parts.has(number)
    assert [part["x"].to_pylist() for part in parts.read()] == [[0, 1], [2, 3], [4]]
    first, second, third = sorted(parts.work.glob("part-*"))
    first.write_bytes(first.read_bytes()[:20])
    second.write_bytes(b"")
    assert [parts.has(number) for number in range(3)] == [False, False, True]
    third.write_bytes(b"")
    parts.write(2, table(0, 2))
    assert not parts.has(2)
    parts.drop()
    assert not list(tmp_path.iterdir())


def test_parts_of_this_job_are_gone_on_with_when_told_to(tmp_path):
    parts = some_parts(tmp_path)
    parts.begin(may_resume=True)
    parts.begin(may_resume=False)  # nothing is lost: no part is there
    parts.write(0, table(0, 2))
    with pytest.raises(UserError, match=r"\.out\.tsv\.making: .* add --resume to go on with it"):
        parts.begin(may_resume=False)
    parts.begin(may_resume=True)
    assert parts.has(0)


def test_parts_of_another_job_are_never_gone_on_with(tmp_path):
    some_parts(tmp_path, precision="fp32").begin(may_resume=False)
    some_parts(tmp_path, precision="fp32").write(0, table(0, 2))
    other = some_parts(tmp_path, precision="bf16")
    with pytest.raises(UserError, match=r"\(differing in precision\); give the command as it was"):
        other.begin(may_resume=True)
    assert other.has(0)
    other.begin(may_resume=False)
    assert not other.has(0)
    (other.work / "job.json").unlink()
    other.write(0, table(0, 2))
    other.begin(may_resume=True)  # whose parts these are nobody knows
    assert not other.has(0)
