from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desmatch.cli import main
from desmatch.ensemble.lexical import count_texts, lexical_features
from desmatch.errors import UserError
from desmatch.serve.nearest import ROWS, NearestRows, distinct_rows
from tests.serve.conftest import running

ROWS_OF_FOUR = [("1 2", "3", 1), ("4", "1 1", 0), ("5 6", "7", 1), ("7", "2", 0)]

texts = st.lists(st.sampled_from("123456"), min_size=1, max_size=5).map(" ".join)
tables = st.lists(st.tuples(texts, texts, st.integers(0, 1)), min_size=1, max_size=12)


def table_of(rows):
    a, b, label = zip(*rows, strict=True)
    return pa.table({"a": [*a], "b": [*b], "label": pa.array(label, pa.int8())})


def by_brute_force(rows, pair):
    """All distinct rows with their similarity to a pair, each by four cosines of its own."""
    distinct = {}
    for a, b, label in rows:
        distinct.setdefault((frozenset([a, b]), label), (a, b, label))
    counts = count_texts(sorted({text for a, b, _ in distinct.values() for text in (a, b)}))

    def cosine(x, y):
        return lexical_features([x], [y], counts)["tfidf_cosine"][0]

    (x, y), found = pair, []
    for a, b, label in distinct.values():
        straight, crossed = cosine(x, a) + cosine(y, b), cosine(x, b) + cosine(y, a)
        found.append((a, b, label, max(straight, crossed) / 2))
    return found


@settings(max_examples=60)
@given(
    rows=tables, pair=st.tuples(texts | st.just("1 unheard-of"), texts), num_rows=st.integers(1, 9)
)
def test_the_nearest_rows_are_those_of_a_search_through_all(rows, pair, num_rows):
    found = NearestRows(table_of(rows)).search(*pair, num_rows=num_rows)
    expected = {(a, b, label): near for a, b, label, near in by_brute_force(rows, pair)}
    for each in found:
        assert each.similarity == pytest.approx(expected[each[:3]], abs=1e-6)
    best = sorted((near for near in expected.values() if near > 0), reverse=True)[:num_rows]
    assert [each.similarity for each in found] == pytest.approx(best, abs=1e-6)
    assert len({each[:3] for each in found}) == len(found)


@given(rows=tables, pair=st.tuples(texts, texts))
def test_the_order_of_a_pairs_texts_makes_no_difference(rows, pair):
    nearest = NearestRows(table_of(rows))
    straight, crossed = (nearest.search(*each, num_rows=20) for each in (pair, pair[::-1]))
    assert {each[:3] for each in straight} == {each[:3] for each in crossed}
    np.testing.assert_allclose(
        [each.similarity for each in straight], [each.similarity for each in crossed], atol=1e-6
    )


def test_a_row_itself_is_nearest_in_either_order_and_strangers_are_none():
    nearest = NearestRows(table_of(ROWS_OF_FOUR))
    for a, b, label in ROWS_OF_FOUR:
        for pair in ((a, b), (b, a)):
            first = nearest.search(*pair, num_rows=4)[0]
            assert first[:3] == (a, b, label)
            assert first.similarity == pytest.approx(1, abs=1e-6)
    assert nearest.search("8", "9", num_rows=4) == []
    assert nearest.search("8", "4", num_rows=4)[0].similarity == pytest.approx(0.5)


def test_rows_that_say_the_same_are_kept_once_and_contradictions_both():
    rows = [("1", "2", 1), ("2", "1", 1), ("1", "2", 0), ("1", "2", 1), ("3", "3", 0)]
    kept = distinct_rows(table_of(rows)).to_pylist()
    assert [tuple(row.values()) for row in kept] == [rows[0], rows[2], rows[4]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected rows ids_a<TAB>ids_b<TAB>label, got an empty file"),
        ("1 2\t3\t1\n4\t5\n", "rows.tsv:2: "),
    ],
)
def test_rows_that_cannot_be_used_are_refused_with_their_place(tmp_path, text, reason):
    path = tmp_path / "rows.tsv"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        NearestRows.read(path)
    assert reason in str(error.value)


def ask(client, **body):
    status, answer, _ = client.request("POST", "/v1/nearest", json.dumps(body))
    return status, json.loads(answer)


def test_an_export_holds_the_distinct_labelled_rows_where_asked_to(
    export_with_rows, exported_folder, sample_folder
):
    lines = (sample_folder / "train.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    kept = pq.read_table(export_with_rows / ROWS)
    said = {(frozenset([a, b]), int(label)) for a, b, label in rows}
    found = [(frozenset([row["a"], row["b"]]), row["label"]) for row in kept.to_pylist()]
    assert len(found) == len(said)
    assert set(found) == said
    manifests = [json.loads((folder / "serving.json").read_text())
                 for folder in (export_with_rows, exported_folder)]  # fmt: skip
    assert [each["rows"] for each in manifests] == [len(said), None]
    assert not (exported_folder / ROWS).exists()


def test_the_service_shows_them(service_with_rows, export_with_rows):
    rows = NearestRows.read(export_with_rows / ROWS)
    a, b, *_ = rows.search("1", "2", num_rows=1)[0]
    status, answer = ask(service_with_rows, a=a.split(), b=b, num_rows=3)
    assert status == 200
    assert [tuple(row.values()) for row in answer["rows"]] == rows.search(a, b, num_rows=3)
    assert ask(service_with_rows, a=a, b=b)[1]["rows"][:3] == answer["rows"]


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"num_rows": 0}, 422, "num_rows: Input should be greater than or equal to 1"),
        ({"num_rows": 101}, 422, "num_rows: Input should be less than or equal to 100"),
        ({"a": ""}, 422, "a: Value error, a text needs at least one id"),
        ({"b": "1 " * 1001}, 400, "pair: a text of 1001 ids, 1000 at most"),
    ],
)
def test_a_bad_question_gets_its_reason(service_with_rows, changes, status, reason):
    found, answer = ask(service_with_rows, **{"a": "1", "b": "2", **changes})
    assert (found, reason in answer["detail"]) == (status, True), answer


def test_a_file_of_labelled_pairs_may_be_served_beside_an_export(exported_folder, sample_folder):
    path = sample_folder / "train.tsv"
    with running(exported_folder, "--rows", str(path)) as client:
        a, b, label = path.read_text().splitlines()[0].split("\t")
        first = ask(client, a=a, b=b)[1]["rows"][0]
        assert (first["a"], first["b"], first["label"]) == (a, b, int(label))


def test_a_service_without_rows_says_so_and_how_to_have_them(service):
    status, answer = ask(service, a="1", b="2")
    assert status == 404
    assert "This export holds no training rows" in answer["detail"]
    assert "--with-rows" in answer["detail"]


def test_a_missing_file_of_rows_is_named(exported_folder, tmp_path, capsys):
    assert main(["serve", str(exported_folder), "--rows", str(tmp_path / "none.tsv")]) == 2
    assert "none.tsv" in capsys.readouterr().err
