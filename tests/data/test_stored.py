"""Rows on the disk are those that were given, and their ids those of `encode`."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from desmatch.data import stored
from desmatch.data.read import column
from desmatch.data.stored import (
    IDS,
    OFFSETS,
    SCHEMA,
    RowsWriter,
    open_encoded,
    open_rows,
    write_encoded,
)
from desmatch.data.vocabulary import PairParts, fit_vocabulary, joined, thinned
from desmatch.recipe import DataConfig
from tests.conftest import encode_lists

TEXTS = st.lists(st.integers(0, 9).map(str), min_size=1, max_size=6).map(" ".join)
BLOCKS = st.lists(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4), min_size=1, max_size=4)
IN_TMP = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)


def write_blocks(folder, blocks):
    with RowsWriter(folder) as writer:
        for index, block in enumerate(blocks):
            a, b = zip(*block, strict=True)
            lines = range(1, len(block) + 1)
            columns = [a, b, [None] * len(block), [index] * len(block), lines]
            writer.write(pa.table([pa.array(each) for each in columns], SCHEMA.names).cast(SCHEMA))
    return [pair for block in blocks for pair in block]


@IN_TMP
@given(blocks=BLOCKS, rare=st.sampled_from(["unk", "placeholder"]), at_a_time=st.integers(1, 5))
def test_stored_rows_are_those_given_and_their_ids_those_of_encode(
    tmp_path_factory, blocks, rare, at_a_time
):
    folder = tmp_path_factory.mktemp("stored") / "unlabeled"
    rows = write_blocks(folder, blocks)
    found = open_rows(folder)
    assert [*zip(found["a"], found["b"], strict=True)] == rows
    assert found["file"][:] == [index for index, block in enumerate(blocks) for _ in block]
    vocabulary = fit_vocabulary(
        {"1": 3, "2": 2}, DataConfig(min_count=1, max_length=9, rare=rare, num_placeholders=2)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored, "ENCODED_ROWS", at_a_time)
        write_encoded(folder, vocabulary, num_rows=len(rows))
    encoded = open_encoded(folder, num_rows=len(rows))
    expected = vocabulary.encode(column(found, "a"), column(found, "b"))
    np.testing.assert_array_equal(encoded.ids, expected.ids)
    np.testing.assert_array_equal(encoded.offsets, expected.offsets)
    assert isinstance(encoded.ids.base, np.memmap)  # nothing was read


@pytest.mark.parametrize("name", [IDS, OFFSETS])
@pytest.mark.parametrize("cut", [1, 8])
def test_a_file_that_was_cut_is_found_out(tmp_path, name, cut):
    folder = tmp_path / "unlabeled"
    rows = write_blocks(folder, [[("1 2", "3"), ("4 4", "5 6")]])
    write_encoded(folder, fit_vocabulary({}, DataConfig()), num_rows=len(rows))
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-cut])
    with pytest.raises((OSError, ValueError)):
        open_encoded(folder, num_rows=len(rows))


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("value", [-1, 99])
def test_offsets_that_are_not_those_of_texts_are_found_out(tmp_path, monkeypatch, place, value):
    folder = tmp_path / "unlabeled"
    rows = write_blocks(folder, [[("1 2", "3"), ("4 4", "5 6")]])
    write_encoded(folder, fit_vocabulary({}, DataConfig()), num_rows=len(rows))
    offsets = np.fromfile(folder / OFFSETS, np.int64)
    offsets[place] = value
    offsets.tofile(folder / OFFSETS)
    monkeypatch.setattr(stored, "ENCODED_ROWS", 2)
    with pytest.raises(OSError, match=r"unlabeled: offsets\.bin is damaged"):
        open_encoded(folder, num_rows=len(rows))


TOKENS = st.lists(st.integers(7, 30), min_size=1, max_size=4)
PAIRS = st.lists(st.tuples(TOKENS, TOKENS), max_size=5)


@given(st.lists(PAIRS, min_size=1, max_size=4), st.data())
def test_parts_give_the_rows_that_one_array_gives(parts, data):
    each = [encode_lists(pairs) for pairs in parts]
    whole, num_pairs = joined(each), sum(map(len, parts))
    in_parts = PairParts(tuple(each))
    assert in_parts.num_pairs == num_pairs
    some = st.lists(st.integers(0, max(num_pairs - 1, 0)), max_size=8 if num_pairs else 0)
    rows = np.array(data.draw(some), np.int64)
    for found, expected in zip(in_parts.take(rows), whole.take(rows), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("most", "kept"), [(1, [0]), (2, [0, 3]), (4, [0, 2, 4]), (9, range(5))])
def test_every_kth_pair_is_left(most, kept):
    pairs = encode_lists([([7 + row], [8]) for row in range(5)])
    assert thinned(pairs, most).ids[::2].tolist() == [7 + row for row in kept]


COUNTING = """
import sys
from pathlib import Path
from desmatch.data import sources
from desmatch.recipe import Recipe
from desmatch.survey import count_files

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024

sources.BLOCK_BYTES = 1 << 18
small, large = map(Path, sys.argv[1:])
count_files([small], Recipe())
before = peak()
figures, _ = count_files([large], Recipe())
print(figures["data"][0]["rows"], peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_counting_takes_memory_for_a_block_and_not_for_the_file(tmp_path):
    small, large = tmp_path / "small.tsv", tmp_path / "large.tsv"
    side = " ".join(str(10**12 + raw_id) for raw_id in range(60))
    rows = "".join(f"{row} {side}\t{side}\n" for row in range(400)).encode()  # 0.7 MB
    small.write_bytes(rows)
    large.write_bytes(rows * 64)
    done = subprocess.run(
        [sys.executable, "-c", COUNTING, small, large], capture_output=True, text=True, check=True
    )
    num_rows, grown = map(int, done.stdout.split())
    assert num_rows == 64 * 400
    assert grown < large.stat().st_size / 3
