"""Counts by arrays against counts by loops."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from desmatch.errors import UserError
from desmatch.publish.attack import ceiling
from desmatch.publish.coded import read_coded
from desmatch.publish.exposure import RUN_LENGTHS, crowd, lone_runs, rows_with_lone_id
from desmatch.publish.treatments import Treatment, treat

TEXT = st.lists(st.integers(1, 12), min_size=1, max_size=6).map(tuple)
ROWS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=25)


def coded(folder, rows):
    path = folder / "rows.tsv"
    lines = ("\t".join(" ".join(map(str, text)) for text in row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines))
    return read_coded([path])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("coded")


def seen_in(rows, parts_of):
    return Counter(part for row in rows for part in set(parts_of(row)))


@given(ROWS)
def test_a_crowd_is_counted_row_by_row(folder, rows):
    kinds = {
        "ids": seen_in(rows, lambda row: row[0] + row[1]),
        "texts": seen_in(rows, lambda row: row),
        "pairs": seen_in(rows, lambda row: [tuple(sorted(row))]),
    }
    found = {line.pop("kind"): line for line in crowd(coded(folder, rows))}
    for kind, seen in kinds.items():
        counts = list(seen.values())
        assert found[kind] == {
            "distinct": len(counts),
            "in_1": counts.count(1),
            "in_2": counts.count(2),
            "below_5": sum(count < 5 for count in counts),
            "below_10": sum(count < 10 for count in counts),
        }


@given(ROWS)
def test_rows_with_a_lone_id_are_counted(folder, rows):
    seen = seen_in(rows, lambda row: row[0] + row[1])
    expected = sum(any(seen[each] == 1 for each in a + b) for a, b in rows)
    assert rows_with_lone_id(coded(folder, rows)) == expected


def runs_by_loops(rows):
    counts = Counter(each for row in rows for text in row for each in text)
    texts = {text for row in rows for text in row}
    for length in RUN_LENGTHS:
        grams = [(text[at : at + length], text) for text in texts
                 for at in range(len(text) - length + 1)]  # fmt: skip
        often = Counter(gram for gram, _ in grams)
        line = {"length": length}
        for name, least in (("rare", 5), ("any", 10**9)):
            lone = [(gram, text) for gram, text in grams
                    if often[gram] == 1 and all(counts[each] < least for each in gram)]  # fmt: skip
            line |= {f"{name}_once": len(lone), f"{name}_texts": len({text for _, text in lone})}
        yield line


@given(ROWS)
def test_lone_runs_are_found_in_distinct_texts(folder, rows):
    found = lone_runs(coded(folder, rows))
    assert found["lengths"] == [*runs_by_loops(rows)]
    assert found["texts"] == len({text for row in rows for text in row})
    counts = Counter(each for row in rows for text in row for each in text)
    marks = ("".join(" r"[counts[each] < 5] for each in text) for row in rows for text in row)
    assert found["longest"] == max(len(part) for mark in marks for part in mark.split(" "))


@given(ROWS, st.integers(1, 6), st.integers(1, 3))
def test_treated_ids_are_the_frequent_ones_and_the_shared_ones(folder, rows, least, buckets):
    pairs = coded(folder, rows)
    treated, is_shared = treat(pairs, Treatment(least, buckets))
    counts = Counter(str(each) for row in rows for text in row for each in text)
    before = [pairs.ids[code] for code in pairs.codes]
    after = [treated.ids[code] for code in treated.codes]
    groups = {}
    for old, new in zip(before, after, strict=True):
        assert (new == old) == (counts[old] >= least)
        assert is_shared[treated.ids.index(new)] == (new != old)
        groups.setdefault(old, set()).add(new)
    assert all(len(group) == 1 for group in groups.values())
    assert is_shared.sum() <= buckets
    assert len(set(treated.ids)) == len(treated.ids)


@given(ROWS)
def test_the_ceiling_is_one_right_guess_for_every_distinct_count(folder, rows):
    pairs = coded(folder, rows)
    counts = Counter(pairs.counts.tolist())
    found = ceiling(pairs.counts)
    assert found["ids"] == pytest.approx(len(counts) / len(pairs.ids))
    assert found["occurrences"] == pytest.approx(sum(counts) / pairs.counts.sum())


def test_a_folder_is_read_by_role_or_else_as_a_whole(tmp_path):
    (tmp_path / "b.tsv").write_text("1\t2\n")
    (tmp_path / "a.tsv").write_text("3\t4\t1\n")
    assert read_coded([tmp_path]).labels.tolist() == [1, -1]
    (tmp_path / "train.tsv").write_text("5\t6\t0\n")
    assert read_coded([tmp_path]).ids == ["5", "6"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="name the files"):
        read_coded([tmp_path / "empty"])
