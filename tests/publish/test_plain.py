from __future__ import annotations

import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from desmatch.errors import UserError
from desmatch.publish.plain import Columns, read_plain

ROWS = [("你好 吗", 'a "b", c', "1"), ("x\u2028y", "zé", "0"), ("p", "q", "1")]


def read(path, *names, **options):
    rows = read_plain(path, Columns(names=names, **options))
    return [(row.a, row.b, row.label) for row in rows]


def write_csv(path, rows, header=("a", "b", "label")):
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows] if header else rows)
    return path


def write_parquet(path, columns):
    pq.write_table(pa.table(columns), path)
    return path


def columns_of(rows):
    a, b, label = zip(*rows, strict=True)
    return {"a": a, "b": b, "label": [int(each) for each in label]}


def write_all(folder):
    lines = "".join("\t".join(row) + "\n" for row in ROWS)
    (folder / "rows.tsv").write_text(lines, encoding="utf-8")
    (folder / "rows.txt.gz").write_bytes(gzip.compress(lines.replace("\n", "\r\n").encode()))
    write_csv(folder / "rows.csv", ROWS)
    jsonl = [json.dumps({"label": int(label), "b": b, "a": a, "c": 1}) for a, b, label in ROWS]
    (folder / "rows.jsonl").write_text("\n".join(jsonl), encoding="utf-8")
    write_parquet(folder / "rows.parquet", columns_of(ROWS) | {"more": [1, 2, 3]})
    return sorted(folder.iterdir())


def test_every_format_gives_the_same_rows(tmp_path):
    for path in write_all(tmp_path):
        assert read(path) == ROWS, path.name


def test_columns_are_found_by_name_and_the_label_may_be_missing(tmp_path):
    path = write_csv(tmp_path / "q.csv", [("7", "p", "q"), ("8", "r", "s")], ("id", "q1", "q2"))
    assert read(path, "q2", "q1") == [("q", "p", None), ("s", "r", None)]
    assert read(path, "q2", "q1", "same") == [("q", "p", None), ("s", "r", None)]
    tsv = tmp_path / "q.tsv"
    tsv.write_text(path.read_text().replace(",", "\t"))
    assert read(tsv, "q1", "q2") == [("p", "q", None), ("r", "s", None)]


def test_columns_without_a_header_are_numbers(tmp_path):
    path = write_csv(tmp_path / "q.csv", [("7", "p", "q", "0")], header=None)
    assert read(path, "3", "2", "4", has_header=False) == [("q", "p", "0")]
    bare = write_csv(tmp_path / "bare.csv", [("p", "q")], header=None)
    assert read(bare, has_header=False) == [("p", "q", None)]


def test_a_quoted_text_may_go_over_lines_and_later_rows_keep_their_line(tmp_path):
    path = tmp_path / "q.csv"
    path.write_text('a,b\n"one\ntwo",x\ny,z\n')
    assert [(row.line, row.a) for row in read_plain(path, Columns())] == [(2, "one\ntwo"), (4, "y")]


def test_labels_may_be_floats_booleans_or_missing(tmp_path):
    for label in ([1.0, 0.0], [True, False], [1, 0]):
        path = write_parquet(tmp_path / "x.parquet", {"a": ["p", "q"], "b": "rs", "label": label})
        assert [row[2] for row in read(path)] == ["1", "0"]
    path = write_parquet(tmp_path / "x.parquet", {"a": ["p"], "b": ["q"], "label": pa.nulls(1)})
    assert read(path) == [("p", "q", None)]


SECRETS = "geheim1,geheim2"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("f.tsv", "", ": expected pairs of texts, got no row"),
        ("f.tsv", "geheim1\n", ":1: expected 2 or 3 columns, got 1; mend the row"),
        ("f.tsv", "geheim1\tg\n\ng\th\n", ":2: expected 2 columns, got 1"),
        ("f.tsv", "geheim1\tg\nx\ty\t1\n", ":2: expected 2 columns, got 3"),
        ("f.tsv", "g\th\tgeheim1\n", ":1: expected label 0 or 1, got something else"),
        ("f.tsv", "g\th\t\ng\tgeheim1\t1\n", ":2: expected label 0 or 1 as in the rows before"),
        ("f.tsv", b"g\th\ngeheim1\t\xff\n", ":2: expected UTF-8, got other bytes"),
        ("f.tsv", "g\th\n".encode("utf-16"), ": expected UTF-8, got UTF-16"),
        ("f.csv", SECRETS, ":1: expected one column 'a', got 0 of 2; name the columns"),
        ("f.csv", "a,b\n", ": expected pairs of texts, got no row"),
        ("f.csv", f'a,b\nx,y\n"{SECRETS}\n', ":3: not valid CSV"),
        ("f.csv", f"a,b\n{SECRETS},x\n", ":2: expected 2 columns, got 3"),
        ("f.csv", "a,b,a\nx,y,z\n", ":1: expected one column 'a', got 2 of 3"),
        ("f.jsonl", '{"a": "geheim1"}\n', ":1: expected an object with the keys 'a' and 'b'"),
        ("f.jsonl", '["geheim1"]\n', ":1: expected an object"),
        ("f.jsonl", '{"a": "geheim1\n', ":1: not valid JSON"),
        ("f.jsonl", '{"a": "g", "b": 7}\n', ":1: expected two texts, got a value that is none"),
        ("f.jsonl", '{"a": "g", "b": "\\ud800"}\n', ":1: half of a surrogate pair"),
        ("f.jsonl", '{"a": "g", "b": "h", "label": ["geheim1"]}\n', ":1: expected label 0 or 1"),
        ("f.jsonl", "[" * 100_000 + "\n", ":1: not valid JSON"),
        ("f.parquet", "geheim1", ": not a readable Parquet file; write it again"),
        ("f.tsv.gz", b"\x1f\x8bgeheim1", "gzip"),
    ],
)
def test_a_bad_file_is_named_and_never_shown(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    assert reason in str(caught.value)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("name", ["none.tsv", "none.csv", "none.jsonl", "none.parquet"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(UserError, match=f"{name}: no such file"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("names", "has_header", "reason"),
    [
        (("a",), True, "expected two or three names, got 1"),
        (("a", "b", "c", "d"), True, "expected two or three names, got 4"),
        (("a", "b"), False, "without a header columns are numbers from 1"),
        (("0", "1"), False, "without a header columns are numbers from 1"),
    ],
)
def test_wrong_columns_are_refused(names, has_header, reason):
    with pytest.raises(UserError, match=reason):
        Columns(names=names, has_header=has_header)


def test_a_number_of_no_column_is_refused(tmp_path):
    path = write_csv(tmp_path / "q.csv", [("p", "q")], header=None)
    with pytest.raises(UserError, match=r":1: got 2 columns, and --columns asks for number 3"):
        read(path, "1", "3", has_header=False)
