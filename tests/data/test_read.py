"""Reading is compared with a reader in plain Python that goes row by row."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from desmatch.data import sources
from desmatch.data.read import (
    ReadPairs,
    count_pairs,
    read_pairs,
    read_tables,
    split_ids,
    write_rejected,
)
from desmatch.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from desmatch.data.faults import Labels

IN_TMP = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
"""A test that writes one file again and again in the same folder."""

IDS = st.text("0123456789xé\U0001f600", min_size=1, max_size=4)
TEXTS = st.lists(IDS, max_size=6).map(" ".join)
SIDES = st.lists(IDS, min_size=1, max_size=6).map(" ".join)


def written(folder: Path, content: bytes | str, name: str = "pairs.tsv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def tuples(pairs: ReadPairs) -> list[tuple[str, str, int | None]]:
    columns = pairs.rows.to_dict()
    return list(zip(columns["a"], columns["b"], columns["label"], strict=True))


def message(path: Path, labels: Labels = "required") -> str:
    with pytest.raises(UserError) as caught:
        read_pairs([path], labels=labels)
    return str(caught.value)


# --- the good -------------------------------------------------------------------------------------


def test_columns_types_files_and_lines(tmp_path: Path):
    first = written(tmp_path, "1 2\t3\t1\n4\t5 6\t0\n", "first.tsv")
    second = written(tmp_path, "7\t8\t0", "second.tsv")
    rows = read_pairs([first, second], labels="required").rows
    assert {name: feature.dtype for name, feature in rows.features.items()} == {
        "a": "string",
        "b": "string",
        "label": "int8",
        "file": "int16",
        "line": "int32",
    }
    assert rows.to_dict() == {
        "a": ["1 2", "4", "7"],
        "b": ["3", "5 6", "8"],
        "label": [1, 0, 0],
        "file": [0, 0, 1],
        "line": [1, 2, 1],
    }


@pytest.mark.parametrize(
    "content",
    [
        b"1 2\t3\t1\n4\t5 6\t0",
        b"1 2\t3\t1\r\n4\t5 6\t0\r\n",
        b"\xef\xbb\xbf1 2\t3\t1\n4\t5 6\t0\n",
        b"1 2\t3\t1\n4\t5 6\t0\n\n\r\n\n",
        b" 1  2 \t3\t1\n4\t\x0b5 \x1c 6\t0\n",
        "1\u30002\t\xa03\t1\n4\u2028\t5\x856\t0\n".encode(),
        gzip.compress(b"1 2\t3\t1\n4\t5 6\t0\n"),
    ],
    ids=["no last newline", "CRLF", "BOM", "blank end", "spaces", "unicode spaces", "gzip"],
)
def test_tolerated(tmp_path: Path, content: bytes):
    pairs = read_pairs([written(tmp_path, content)], labels="required")
    assert tuples(pairs) == [("1 2", "3", 1), ("4", "5 6", 0)]
    assert pairs.rows["line"][:] == [1, 2]


def test_unlabelled_rows_have_null(tmp_path: Path):
    path = written(tmp_path, "1\t2\n3\t4\n")
    assert tuples(read_pairs([path], labels="absent")) == [("1", "2", None), ("3", "4", None)]


def test_optional_is_decided_by_each_file(tmp_path: Path):
    labelled = written(tmp_path, "1\t2\t0\n", "labelled.tsv")
    unlabelled = written(tmp_path, "3\t4\n", "unlabelled.tsv")
    pairs = read_pairs([labelled, unlabelled], labels="optional")
    assert tuples(pairs) == [("1", "2", 0), ("3", "4", None)]


def written_as(folder: Path, kind: str, rows: list[tuple[str, str]], labels: list[int]) -> Path:
    """Write rows as one of the formats; without labels where there are none."""
    lines = ["\t".join([a, b, *map(str, labels[i : i + 1])]) for i, (a, b) in enumerate(rows)]
    objects = [
        {"a": a, "b": b.split(), **({"label": labels[i]} if labels else {})}
        for i, (a, b) in enumerate(rows)
    ]
    match kind:
        case "tsv":
            return written(folder, "\n".join(lines) + "\n")
        case "gz":
            return written(folder, gzip.compress("\n".join(lines).encode()), "pairs.tsv.gz")
        case "jsonl":
            return written(folder, "\n".join(map(json.dumps, objects)), "pairs.jsonl")
        case "jsonl.gz":
            text = "\n".join(json.dumps(row, ensure_ascii=False) for row in objects)
            return written(folder, gzip.compress(text.encode()), "pairs.jsonl.gz")
        case _:
            pq.write_table(pa.Table.from_pylist(objects), folder / "pairs.parquet")
            return folder / "pairs.parquet"


@pytest.mark.parametrize("kind", ["tsv", "gz", "jsonl", "jsonl.gz", "parquet"])
@settings(IN_TMP, max_examples=30)
@given(
    rows=st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=8),
    bits=st.none() | st.lists(st.integers(0, 1), min_size=8, max_size=8),
    block_bytes=st.integers(1, 64),
)
def test_round_trip(
    tmp_path: Path,
    kind: str,
    rows: list[tuple[str, str]],
    bits: list[int] | None,
    block_bytes: int,
):
    if bits is None and rows[0][0].isidentifier() and rows[0][1].isidentifier():
        rows = [("7", "7"), *rows]  # else line 1 may look like a header
    labels = (bits or [])[: len(rows)] if len(rows) <= 8 else []
    path = written_as(tmp_path, kind, rows, labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "BLOCK_BYTES", block_bytes)
        patch.setattr(sources, "BLOCK_ROWS", 3)
        pairs = read_pairs([path], labels="optional")
    expected = [(a, b, labels[i] if labels else None) for i, (a, b) in enumerate(rows)]
    assert tuples(pairs) == expected
    assert pairs.rows["line"][:] == list(range(1, len(rows) + 1))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary("int32", "string")])
def test_parquet_types_of_text(tmp_path: Path, kind: pa.DataType):
    texts = pa.array(["1\t2", "3\n4"]).cast(kind)
    label = pa.array([1, 0], pa.uint8())
    pq.write_table(pa.table({"label": label, "b": texts, "a": texts}), tmp_path / "p.parquet")
    pairs = read_pairs([tmp_path / "p.parquet"], labels="required")
    assert tuples(pairs) == [("1 2", "1 2", 1), ("3 4", "3 4", 0)]


def test_ids_stay_texts(tmp_path: Path):
    """`datasets` would read a date; leading zeros and file names with brackets are kept as well."""
    path = written(tmp_path, '{"a": "2020-01-01", "b": ["007", 8]}\n', "x[1].jsonl")
    assert tuples(read_pairs([path], labels="absent")) == [("2020-01-01", "007 8", None)]


def test_nothing_is_left_behind(tmp_path: Path):
    path = written_as(tmp_path, "parquet", [("1", "2")], [1])
    read_pairs([path], labels="required")
    assert list(tmp_path.iterdir()) == [path]


def test_fingerprint_is_of_the_content(tmp_path: Path):
    path = written(tmp_path, "1\t2\t1\n")
    first, again = (read_pairs([path], labels="required").rows for _ in range(2))
    other = read_pairs([written(tmp_path, "1\t2\t0\n")], labels="required").rows
    assert first._fingerprint == again._fingerprint != other._fingerprint


def test_torch_stays_out():
    code = "import sys, desmatch.data.read, datasets; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the bad --------------------------------------------------------------------------------------

GOOD_LINE = b"1 2\t3\t1"

BAD_LINES = {
    "one column": (
        b"1 2 3",
        "expected 2 or 3 columns, got 1 column; write ids_a<TAB>ids_b[<TAB>label]",
    ),
    "five columns": (
        b"1\t2\t1\t\t",
        "expected 2 or 3 columns, got 5 columns; write ids_a<TAB>ids_b[<TAB>label]",
    ),
    "empty line": (b"", "expected 2 or 3 columns, got an empty line; remove it"),
    "blank line": (b"  ", "expected 2 or 3 columns, got an empty line; remove it"),
    "empty a": (
        b" \t2\t1",
        "expected ids in column 1, got none; write at least one id or remove the row",
    ),
    "empty b": (
        b"2\t\t1",
        "expected ids in column 2, got none; write at least one id or remove the row",
    ),
    "both empty": (
        b"\t\t1",
        "expected ids in column 1, got none; write at least one id or remove the row",
    ),
    "label 2": (
        b"1\t2\t2",
        "expected label 0 or 1, got '2'; mend the label or remove the row",
    ),
    "label with a space": (
        b"1\t2\t1 ",
        "expected label 0 or 1, got '1 '; mend the label or remove the row",
    ),
    "label with a point": (
        b"1\t2\t1.0",
        "expected label 0 or 1, got '1.0'; mend the label or remove the row",
    ),
    "empty label": (
        b"1\t2\t",
        "expected label 0 or 1, got ''; mend the label or remove the row",
    ),
    "no label": (
        b"1\t2",
        "expected label 0 or 1 in column 3, got no label; add it or remove the row",
    ),
    "UTF-8": (
        b"1\t2 \xff\xe9\t1",
        "expected UTF-8, got other bytes; save the file as UTF-8",
    ),
    "NUL": (
        b"1\t2\0\t1",
        "expected text, got a NUL byte; remove it or write the file again",
    ),
}


@pytest.mark.parametrize("labels", ["required", "optional"])
@pytest.mark.parametrize(("line", "reason"), BAD_LINES.values(), ids=BAD_LINES)
def test_bad_line(tmp_path: Path, line: bytes, reason: str, labels: Labels):
    path = written(tmp_path, b"\n".join([GOOD_LINE, GOOD_LINE, line, GOOD_LINE, b""]))
    assert message(path, labels) == f"{path}:3: {reason}"
    pairs = read_pairs([path], labels=labels, skip_bad=True)
    assert tuples(pairs) == [("1 2", "3", 1)] * 3
    assert pairs.rows["line"][:] == [1, 2, 4]
    assert [row.message for row in pairs.rejected] == [f"{path}:3: {reason}"]
    write_rejected(tmp_path / "rejected.tsv", pairs.rejected)
    expected = f"{path}:3\t{reason}\t".encode() + line + b"\n"
    assert (tmp_path / "rejected.tsv").read_bytes() == expected


@pytest.mark.parametrize("labels", ["absent", "optional"])
def test_label_where_none_may_be(tmp_path: Path, labels: Labels):
    path = written(tmp_path, "1\t2\n1\t2\n1\t2\t0\n")
    reason = "expected 2 columns without label, got label '0'; remove column 3"
    assert message(path, labels) == f"{path}:3: {reason}"
    assert len(read_pairs([path], labels=labels, skip_bad=True).rows) == 2


@pytest.mark.parametrize(
    ("header", "row", "labels"),
    [
        ("text_a\ttext_b\tlabel", "1 2\t3\t1", "required"),
        ("text a\ttext b\t标签", "1 2\t3\t1", "optional"),
        ("text_a\ttext_b\tlabel", "x y\tz\t1", "required"),
        ("query1\tquery2", "1 2\t3", "absent"),
        ("a\tb", "1 2\t3", "optional"),
        ("a\tb\tlabel", "1 2\t3", "absent"),
    ],
)
def test_header(tmp_path: Path, header: str, row: str, labels: Labels):
    path = written(tmp_path, "\n".join([header, row, row]))
    assert message(path, labels) == (
        f"{path}:1: expected a row of ids, got what looks like a header ({header!r}); "
        "remove this line"
    )
    pairs = read_pairs([path], labels=labels, skip_bad=True)
    assert pairs.rows["line"][:] == [2, 3]


@pytest.mark.parametrize("content", ["a b\tc\nd\te\n", "a\tb\nc\t1\n", "1\tb\n2\t3\n", "a\tb\n"])
def test_words_are_no_header_without_numbers_below(tmp_path: Path, content: str):
    assert not read_pairs([written(tmp_path, content)], labels="absent").rejected


def test_two_bad_labels_are_no_header(tmp_path: Path):
    path = written(tmp_path, "1\t2\tno\n3\t4\tyes\n5\t6\t1\n")
    assert message(path).count("mend the label") == 2


@pytest.mark.parametrize(
    ("labels", "content", "reason"),
    [
        (
            "required",
            "1\t2\n3\t4\n",
            "no row has a label, and each needs one: pass the file with ids_a<TAB>ids_b<TAB>label",
        ),
        (
            "absent",
            "1\t2\t0\n3\t4\t1\n",
            "every row has a label, and none may have one: remove column 3, or pass the file as "
            "training data",
        ),
    ],
)
@pytest.mark.parametrize("skip_bad", [False, True])
def test_all_rows_alike(tmp_path: Path, labels: Labels, content: str, reason: str, skip_bad: bool):
    path = written(tmp_path, content)
    with pytest.raises(UserError, match=re.escape(f"{path}: {reason}")) as caught:
        read_pairs([path], labels=labels, skip_bad=skip_bad)
    assert "\n" not in str(caught.value)


def test_first_twenty_problems_and_a_count(tmp_path: Path):
    first = written(tmp_path, "1\t2\t1\n" + "1\n" * 30, "first.tsv")
    second = written(tmp_path, "1\t2\t1\n" + "1\n" * 5, "second.tsv")
    with pytest.raises(UserError) as caught:
        read_pairs([first, tmp_path / "missing", second], labels="required")
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines[:20]] == [f"{first}:{i}" for i in range(2, 22)]
    assert lines[20:] == ["... and 16 more"]
    pairs = read_pairs([first, second], labels="required", skip_bad=True)
    assert len(pairs.rejected) == 35


def test_no_good_row_is_left(tmp_path: Path):
    path = written(tmp_path, "1\n2\t3\t4\n")
    with pytest.raises(UserError) as caught:
        read_pairs([path], labels="required", skip_bad=True)
    first, *rest = str(caught.value).splitlines()
    assert first == f"{path}: no good row is left; its rows:"
    assert [line.split(": ")[0] for line in rest] == [f"{path}:1", f"{path}:2"]


UNREADABLE = {
    "empty": ("p.tsv", b"", "expected rows ids_a<TAB>ids_b[<TAB>label], got an empty file"),
    "newlines": ("p.tsv", b"\n\r\n", "expected rows ids_a<TAB>ids_b[<TAB>label], got an empty fi"),
    "empty gzip": ("p.gz", gzip.compress(b""), "expected rows ids_a<TAB>ids_b[<TAB>label], got an"),
    "truncated": (
        "p.gz",
        gzip.compress(b"1\t2\t1\n" * 999)[:-9],
        "the gzip ends early; copy or download it again",
    ),
    "damaged": ("p.gz", b"\x1f\x8b\x08" + b"\0" * 7 + b"\xff" * 30, "damaged gzip (Error -3"),
    "gzip tail": ("p.gz", gzip.compress(b"1\t2\t1\n") + b"abcdefgh", "damaged gzip (Not a gzip"),
    "UTF-16": (
        "p.tsv",
        "1\t2\t1\n".encode("utf-16"),
        "expected UTF-8, got UTF-16; save the file as UTF-8",
    ),
    "UTF-16 LE": ("p.tsv", "1\t2\t1\n".encode("utf-16-le"), "expected UTF-8, got UTF-16; save"),
    "UTF-16 BE": ("p.tsv", "1\t2\t1\n".encode("utf-16-be"), "expected UTF-8, got UTF-16; save"),
    "not Parquet": ("p.parquet", b"1\t2\t1\n", "not a readable Parquet file ("),
    "empty Parquet": ("p.parquet", b"", "not a readable Parquet file ("),
}


@pytest.mark.parametrize(("name", "content", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_unreadable(tmp_path: Path, name: str, content: bytes, reason: str):
    path = written(tmp_path, content, name)
    assert message(path).startswith(f"{path}: {reason}")


def test_missing_file_folder_and_none(tmp_path: Path):
    path = tmp_path / "missing.tsv"
    assert message(path) == f"{path}: no such file; check the name"
    assert message(path.with_suffix(".parquet")).endswith("no such file; check the name")
    why = "expected a file, got a folder; name the files in it"
    assert message(tmp_path) == f"{tmp_path}: {why}"
    (tmp_path / "x.parquet").mkdir()
    assert message(tmp_path / "x.parquet") == f"{tmp_path / 'x.parquet'}: {why}"
    with pytest.raises(UserError, match="expected at least one file of pairs, got none"):
        read_pairs([], labels="required")


@pytest.mark.parametrize("label", ["", "\t1"])
def test_a_file_is_counted_and_read_in_blocks_as_it_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label: str
):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 100)
    path = written(tmp_path, "".join(f"{row} 1\t2{label}\n" for row in range(200)))
    tables = [*read_tables(path, labels="optional")]
    assert len(tables) > 5
    whole = read_pairs([path], labels="optional").rows
    assert pa.concat_tables(tables).to_pydict() == whole.remove_columns("file").to_dict()
    assert count_pairs(path, labels="optional") == 200


def test_counting_refuses_what_reading_refuses_and_blocks_end_where_the_fault_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 100)
    good = "".join(f"{row} 1\t2\n" for row in range(100))
    for content in (good + "1\t2\t1\n" * 30, good + "1\n", "", "1\t\n", "1\t2\tx\n"):
        path = written(tmp_path, content)
        with pytest.raises(UserError) as caught:
            count_pairs(path, labels="optional")
        assert str(caught.value) == message(path, "optional")
    tables = read_tables(written(tmp_path, good + "1\n"), labels="optional")
    assert next(tables)["a"][0].as_py() == "0 1"
    with pytest.raises(UserError, match=r"pairs\.tsv:101: expected 2 or 3 columns, got 1 column"):
        list(tables)


def test_gzip_bomb_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 1 << 16)
    monkeypatch.setattr(sources, "MAX_EXPANDED_BYTES", 2 << 20)
    path = written(tmp_path, gzip.compress(b"1\t2\t1\n" * 400_000))
    assert message(path) == (
        f"{path}: expected at most 2 MiB in the gzip, got more; split the file or unpack it "
        "yourself"
    )


def test_gzip_bomb_by_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources, "RATIO_FROM_BYTES", 1 << 20)
    path = written(tmp_path, gzip.compress(b"1" * (1 << 22)))
    assert "the gzip expands more than 1000 times" in message(path)


def test_endless_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 1 << 16)
    monkeypatch.setattr(sources, "MAX_LINE_BYTES", 1 << 20)
    path = written(tmp_path, b"1\t2\t1\n" + b"1 " * (1 << 20))
    assert message(path) == f"{path}: a line is longer than 1 MiB; is this a text file?"


JSON_GOOD = '{"a": "1", "b": [2], "label": 0}'

BAD_JSON = {
    "cut": ('{"a": "1", "b":', "expected a JSON object, got malformed JSON (Expecting value"),
    "list": ("[1]", 'expected an object with "a" and "b", got a list; write both texts'),
    "keys": ('{"b": "1"}', 'expected an object with "a" and "b", got the keys [\'b\']'),
    "deep": ("[" * 100_000, "expected a JSON object, got brackets nested too deep"),
    "number": ('{"a": 1, "b": "2"}', 'expected a string or a list of ids as "a", got 1; write'),
    "nested": ('{"a": "1", "b": [[2]]}', 'expected a string or a list of ids as "b", got [[2]]'),
    "truth": ('{"a": "1", "b": [true]}', 'expected a string or a list of ids as "b", got [true]'),
    "float label": (
        '{"a": "1", "b": "2", "label": 1.0}',
        "expected the integer 0 or 1 as label, got 1.0; write it without quotes and point",
    ),
    "bool label": ('{"a": "1", "b": "2", "label": true}', "expected the integer 0 or 1 as label, "),
    "text label": ('{"a": "1", "b": "2", "label": "1"}', "expected the integer 0 or 1 as label, "),
    "label 7": ('{"a": "1", "b": "2", "label": 7}', "expected label 0 or 1, got '7'; mend"),
    "null label": ('{"a": "1", "b": "2", "label": null}', "expected label 0 or 1 in column 3, got"),
    "empty list": ('{"a": [], "b": "2", "label": 1}', "expected ids in column 1, got none;"),
    "surrogate": ('{"a": "\\ud800", "b": "2", "label": 1}', "expected UTF-8, got other bytes;"),
    "NUL": ('{"a": "\\u0000", "b": "2", "label": 1}', "expected text, got a NUL byte;"),
    "blank": (" ", "expected 2 or 3 columns, got an empty line; remove it"),
    "not UTF-8": (b'{"a": "\xff"}', "expected UTF-8, got other bytes; save"),
    "huge number": (
        '{"a": [' + "1" * 5000 + '], "b": "2"}',
        "expected a JSON object, got malformed JSON (Exc",
    ),
}


@pytest.mark.parametrize(("line", "reason"), BAD_JSON.values(), ids=BAD_JSON)
def test_bad_json_line(tmp_path: Path, line: str | bytes, reason: str):
    line = line.encode() if isinstance(line, str) else line
    good = JSON_GOOD.encode()
    path = written(tmp_path, b"\n".join([good, line, good]), "pairs.jsonl")
    assert message(path).startswith(f"{path}:2: {reason}")
    pairs = read_pairs([path], labels="required", skip_bad=True)
    assert tuples(pairs) == [("1", "2", 0)] * 2
    write_rejected(tmp_path / "rejected", pairs.rejected)
    assert (tmp_path / "rejected").read_bytes().endswith(b"\t" + line + b"\n")


BAD_TABLES = {
    "no b": ({"a": ["1"]}, "expected one column 'b', got the columns ['a']; name the columns a, b"),
    "numbers": ({"a": [1], "b": ["1"]}, "expected strings or lists of ids in column 'a', got int"),
    "floats": ({"a": ["1"], "b": [[1.5]]}, "expected strings or lists of ids in column 'b', got l"),
    "float label": (
        {"a": ["1"], "b": ["1"], "label": [1.0]},
        "expected integers 0 and 1 in column 'label', got double; write an integer column, null "
        "where a row has no label",
    ),
    "bool label": ({"a": ["1"], "b": ["1"], "label": [True]}, "expected integers 0 and 1 in colum"),
    "text label": ({"a": ["1"], "b": ["1"], "label": ["1"]}, "expected integers 0 and 1 in column"),
    "no rows": (
        {"a": pa.array([], pa.string()), "b": pa.array([], pa.string())},
        "expected rows ids_a<TAB>ids_b[<TAB>label], got an empty file",
    ),
}


@pytest.mark.parametrize(("columns", "reason"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_bad_parquet(tmp_path: Path, columns: dict[str, list[object]], reason: str):
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.table(columns), path)
    assert message(path).startswith(f"{path}: {reason}")


def test_bad_parquet_rows(tmp_path: Path):
    path = tmp_path / "pairs.parquet"
    columns = {
        "a": [["1", "2"], None, ["1"], ["1"], [None]],
        "b": ["1", "1", " ", "1", "1"],
        "label": [0, 1, 1, 2, 1],
    }
    pq.write_table(pa.table(columns), path)
    lines = message(path).splitlines()
    found = [re.sub(r".*:(\d): (.*), got.*", r"\1 \2", line) for line in lines]
    assert found == [
        "2 expected ids in column 1",
        "3 expected ids in column 2",
        "4 expected label 0 or 1",
        "5 expected ids in column 1",
    ]
    assert len(read_pairs([path], labels="required", skip_bad=True).rows) == 1


def test_refused_write_leaves_the_old_file(tmp_path: Path):
    path = written(tmp_path, "old", "rejected.tsv")
    with pytest.raises(AttributeError):
        write_rejected(path, [None])  # type: ignore[list-item]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# --- the slow, obvious reader ---------------------------------------------------------------------


class Twin(NamedTuple):
    """What the reader in plain Python found."""

    rows: list[tuple[str, str, int | None, int]]
    bad: list[tuple[int, str]]
    """Line and the start of the reason."""


def twin_reason(line: bytes, labels: Labels) -> str:
    columns = line.split(b"\t")
    if b"\0" in line:
        return "expected text"
    try:
        line.decode()
    except UnicodeDecodeError:
        return "expected UTF-8"
    if len(columns) not in (2, 3):
        return "expected 2 or 3 columns"
    for i in (0, 1):
        if not columns[i].decode().split():
            return f"expected ids in column {i + 1}"
    if labels == "absent":
        return "expected 2 columns without label" if len(columns) == 3 else ""
    if len(columns) == 2:
        return "expected label 0 or 1 in"
    return "" if columns[2] in (b"0", b"1") else "expected label 0 or 1, got"


def twin_is_header(lines: list[bytes]) -> bool:
    first, *rest = lines
    if twin_reason(first, "required") not in ("", "expected label 0 or 1 in", WRONG_LABEL):
        return False
    names = first.decode().split("\t")
    if twin_reason(first, "required") == WRONG_LABEL:
        numbers = [raw_id for name in names for raw_id in name.split() if raw_id.isdecimal()]
        others = [twin_reason(line, "required") for line in rest]
        return names[2] != "" and not numbers and WRONG_LABEL not in others
    digits = set(b"0123456789 \t")
    words = [name for name in names if re.fullmatch(r"[^\W\d]\w*", name)]
    is_above_numbers = rest != [] and all(line and set(line) <= digits for line in rest)
    return words == names and is_above_numbers


WRONG_LABEL = "expected label 0 or 1, got"


def twin_read(content: bytes, labels: Labels) -> Twin:
    lines = content.replace(b"\r\n", b"\n").rstrip(b"\r\n").split(b"\n")
    lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
    has_header = twin_is_header(lines)
    if labels == "optional":
        body = lines[has_header:]
        num_labelled = [twin_reason(line, "required") for line in body].count("")
        num_unlabelled = [twin_reason(line, "absent") for line in body].count("")
        labels = "required" if num_labelled >= num_unlabelled else "absent"
    found = Twin([], [])
    for number, line in enumerate(lines, start=1):
        reason = twin_reason(line, labels)
        if number == 1 and has_header:
            reason = "expected a row of ids"
        if reason:
            found.bad.append((number, reason))
        else:
            columns = line.decode().split("\t")
            label = int(columns[2]) if len(columns) == 3 else None
            a, b = (" ".join(text.split()) for text in columns[:2])
            found.rows.append((a, b, label, number))
    return found


GOOD_LINES = st.builds(lambda a, b, y: f"{a}\t{b}\t{y}".encode(), SIDES, SIDES, st.integers(0, 1))
UNLABELLED = st.builds(lambda a, b: f"{a}\t{b}".encode(), SIDES, SIDES)
WILD_LINES = st.one_of(
    st.sampled_from([line for line, _ in BAD_LINES.values()]),
    st.sampled_from([b"text_a\ttext_b\tlabel", b"a\tb", b"12\t34", b"1\t2 3\t1", b"\xef\xbb\xbf"]),
    st.lists(st.sampled_from([b"1", b"x", b" ", b"\t", b"\r", b"\xa0", "\u3000".encode()])).map(
        b"".join
    ),
)


@settings(IN_TMP, max_examples=300)
@given(
    lines=st.lists(st.one_of(GOOD_LINES, UNLABELLED, WILD_LINES), min_size=1, max_size=12),
    ending=st.sampled_from([b"\n", b"\r\n"]),
    labels=st.sampled_from(["required", "absent", "optional"]),
)
def test_agrees_with_the_slow_reader(
    tmp_path: Path, lines: list[bytes], ending: bytes, labels: Labels
):
    path = written(tmp_path, ending.join(lines))
    twin = twin_read(path.read_bytes(), labels)
    if not twin.rows:
        with pytest.raises(UserError, match=re.escape(str(path))):
            read_pairs([path], labels=labels, skip_bad=True)
        return
    pairs = read_pairs([path], labels=labels, skip_bad=True)
    columns = pairs.rows.to_dict()
    found = zip(columns["a"], columns["b"], columns["label"], columns["line"], strict=True)
    assert list(found) == twin.rows
    assert [row.line for row in pairs.rejected] == [line for line, _ in twin.bad]
    for row, (_, reason) in zip(pairs.rejected, twin.bad, strict=True):
        assert row.reason.startswith(reason)
    if twin.bad:
        text = message(path, labels)
        assert text.splitlines() == [row.message for row in pairs.rejected]


@settings(IN_TMP, max_examples=100)
@given(
    lines=st.lists(st.one_of(GOOD_LINES, WILD_LINES), min_size=1, max_size=12),
    block_bytes=st.integers(1, 40),
)
def test_blocks_change_nothing(tmp_path: Path, lines: list[bytes], block_bytes: int):
    """Except that the header rule looks at the first block alone, hence a good line first."""
    path = written(tmp_path, b"\n".join([b"1 1\t1\t1", *lines]))
    whole = read_pairs([path], labels="required", skip_bad=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "BLOCK_BYTES", block_bytes)
        parts = read_pairs([path], labels="required", skip_bad=True)
    assert parts.rows.to_dict() == whole.rows.to_dict()
    assert parts.rejected == whole.rejected


def assert_rows_or_user_error(path: Path, skip_bad: bool):
    """Read a file of any bytes: nothing but a `UserError` that can be printed may come."""
    problem = ""
    try:
        pairs = read_pairs([path], labels="optional", skip_bad=skip_bad)
    except UserError as error:
        problem = str(error)
    else:
        assert len(pairs.rows) > 0
    assert not problem or str(path).encode() in problem.encode()


@pytest.mark.parametrize("name", ["p.tsv", "p.jsonl", "p.parquet"])
@settings(IN_TMP, max_examples=100)
@given(content=st.binary(max_size=60), is_gzip=st.booleans(), skip_bad=st.booleans())
def test_any_bytes_give_rows_or_a_user_error(
    tmp_path: Path, name: str, content: bytes, is_gzip: bool, skip_bad: bool
):
    path = written(tmp_path, b"\x1f\x8b\x08" + content if is_gzip else content, name)
    assert_rows_or_user_error(path, skip_bad)


@settings(IN_TMP, max_examples=100)
@given(data=st.data())
def test_damaged_files_give_rows_or_a_user_error(tmp_path: Path, data: st.DataObject):
    kind = data.draw(st.sampled_from(["gz", "jsonl", "parquet"]))
    path = written_as(tmp_path, kind, [("1 2", "3"), ("4", "5 6")], [0, 1])
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    assert_rows_or_user_error(path, data.draw(st.booleans()))


# --- split_ids ------------------------------------------------------------------------------------


@given(chunks=st.lists(st.lists(TEXTS, max_size=5), max_size=4))
def test_split_ids_equals_python_split(chunks: list[list[str]]):
    texts = [text for chunk in chunks for text in chunk]
    split = split_ids(pa.chunked_array(chunks, pa.string()))
    ids = split.dictionary.to_pylist()
    flat = [raw_id for text in texts for raw_id in text.split()]
    assert ids == list(dict.fromkeys(flat))
    assert [ids[code] for code in split.codes] == flat
    assert np.diff(split.offsets).tolist() == [len(text.split()) for text in texts]


@pytest.mark.parametrize("texts", [[], ["1 2", "3"], [""]])
def test_split_ids_types(texts: list[str]):
    split = split_ids(pa.array(texts, pa.string()))
    assert split.dictionary.type == pa.string()
    assert split.codes.dtype == np.int32
    assert split.offsets.dtype == np.int64
    assert split.offsets.shape == (len(texts) + 1,)


def test_split_ids_of_a_slice():
    split = split_ids(pa.array(["9 9", "1 2", "2"])[1:])
    assert split.dictionary.to_pylist() == ["1", "2"]
    assert split.codes.tolist() == [0, 1, 1]
    assert split.offsets.tolist() == [0, 2, 3]
