from __future__ import annotations

import json
import re
from itertools import islice

import numpy as np
import pytest
from scipy.sparse import hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from desmatch.cli import main
from desmatch.data.sample import LanguageConfig, Speaker, build_grammar
from desmatch.metrics.roc import roc_auc
from desmatch.publish.coded import read_coded
from desmatch.publish.key import read_key
from desmatch.publish.treatments import find_judge
from tests.publish.conftest import SECRET

LETTERS = [chr(code) for code in range(0x2D30, 0x2D68)]
"""Tifinagh, which nothing else here is written in."""


def plain_rows(seed, size):
    """Pairs of the toy language, its words in Tifinagh."""
    config = LanguageConfig()
    grammar = build_grammar(config, np.random.default_rng(0))
    speaker = Speaker(grammar=grammar, config=config, rng=np.random.default_rng(seed))
    for a, b, label in islice(speaker.pairs(), size):
        yield *(" ".join(LETTERS[word % 56] + LETTERS[word // 56] for word in text)
                for text in (a, b)), label  # fmt: skip


def write_rows(path, rows, *, with_label=True):
    lines = (f"{a}\t{b}\t{label}\n" if with_label else f"{a}\t{b}\n" for a, b, label in rows)
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with the toy language numbered in `out`, its key, and a corpus of the same kind."""
    folder = tmp_path_factory.mktemp("published")
    plain = write_rows(folder / "train.tsv", plain_rows(1, 600))
    corpus = write_rows(folder / "corpus.tsv", plain_rows(2, 2000), with_label=False)
    counts = {}
    for word in corpus.read_text(encoding="utf-8").split():
        counts[word] = counts.get(word, 0) + 1
    (folder / "counts.json").write_text(json.dumps(counts))
    (folder / "secret").touch(mode=0o600)
    (folder / "secret").write_text(SECRET)
    words = ["anonymize", plain, "--out", folder / "out", "--key", folder / "key.json",
             "--secret-file", folder / "secret"]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    return folder


def audit(published, *options, out):
    words = ["audit", published / "out", "--out", out, *options]
    assert main([str(word) for word in words]) == 0
    return json.loads(out.with_suffix(".json").read_text())


@pytest.fixture(scope="module")
def measured(published):
    """The figures and the page of an audit with all that can be given."""
    out = published / "audit.html"
    options = ["--key", published / "key.json", "--public-counts", published / "counts.json",
               "--public-pairs", published / "corpus.tsv"]  # fmt: skip
    return audit(published, *options, out=out), out


def test_the_attack_is_what_a_guess_by_hand_gets_right(published, measured):
    figures, _ = measured
    numbers = (published / "out" / "train.tsv").read_text().replace("\t", " ").split()
    numbers = [each for each in numbers if len(each) > 1]
    counts = {each: numbers.count(each) for each in set(numbers)}
    corpus = json.loads((published / "counts.json").read_text())
    tokens = {number: token for token, number in read_key(published / "key.json").numbers.items()}
    ours, theirs = (sorted(each, key=each.get, reverse=True) for each in (counts, corpus))
    right = [counts[number] for number, token in zip(ours, theirs, strict=False)
             if tokens[number] == token]  # fmt: skip
    ties = len(counts) - len(set(counts.values()))
    assert abs(figures["attack"]["ids"] * len(counts) - len(right)) <= ties
    assert figures["attack"]["ids_in_corpus"] == len(counts)


def test_neighbours_give_more_away_than_ranks(measured):
    found = measured[0]["neighbours"]
    assert found["by_neighbours"]["occurrences"] > found["by_rank"]["occurrences"] + 0.1


def test_the_auc_is_that_of_scikit_learn_on_the_same_folds(published, measured):
    pairs = read_coded([published / "out"])
    judge = find_judge(pairs, max_rows=20_000, seed=0)
    rows = [line.split("\t") for line in (published / "out" / "train.tsv").read_text().splitlines()]
    vectorizer = TfidfVectorizer(token_pattern=r"\S+").fit(
        [text for row in rows for text in row[:2]]
    )
    a, b = (vectorizer.transform([row[side] for row in rows]) for side in (0, 1))
    features = hstack([a.multiply(b), abs(a - b)]).tocsr()[judge.rows]
    labels = np.array([int(row[2]) for row in rows])[judge.rows]
    scores = np.empty(len(labels))
    for fold in range(5):
        here = judge.folds.fold == fold
        model = LogisticRegression(max_iter=1000).fit(features[~here], labels[~here])
        scores[here] = model.decision_function(features[here])
    assert measured[0]["treatments"][0]["auc"] == pytest.approx(roc_auc(labels, scores), abs=1e-6)
    texts = [{text for row in judge.rows[judge.folds.fold == fold] for text in rows[row][:2]}
             for fold in range(5)]  # fmt: skip
    assert not any(one & other for k, one in enumerate(texts) for other in texts[:k])


def test_treatments_hide_more_and_more(measured):
    lines = [line for line in measured[0]["treatments"] if line["buckets"] == 1]
    for key, is_rising in (("shared_occurrences", True), ("distinct_ids", False)):
        values = [line[key] for line in lines]
        assert values == sorted(values, reverse=not is_rising)
    assert lines[0]["difference"] == 0
    assert lines[0]["placed"]["occurrences"] == measured[0]["attack"]["occurrences"]


def test_the_same_audit_gives_the_same_bytes(published, measured, tmp_path):
    figures, page = measured
    options = ["--key", published / "key.json", "--public-counts", published / "counts.json",
               "--public-pairs", published / "corpus.tsv"]  # fmt: skip
    again = tmp_path / "audit.html"
    assert audit(published, *options, out=again) == figures
    assert again.read_bytes() == page.read_bytes()


def test_neither_page_nor_figures_nor_terminal_hold_a_token_or_a_number(published, tmp_path, capfd):
    out = tmp_path / "audit.html"
    options = ["--key", published / "key.json", "--public-pairs", published / "corpus.tsv"]
    audit(published, *options, out=out)
    said = "".join([*capfd.readouterr(), *(path.read_text() for path in tmp_path.iterdir())])
    assert not re.search(r"[\u2d30-\u2d7f]", said)
    numbers = {*read_key(published / "key.json").numbers.values()}
    assert not numbers & set(re.findall(r"\d+", said))


def test_without_the_key_it_says_that_it_cannot_be_known(published, tmp_path, capsys):
    out = tmp_path / "audit.html"
    figures = audit(published, "--public-counts", published / "counts.json", "--auc-rows", "0",
                    out=out)  # fmt: skip
    assert figures["attack"] is figures["neighbours"] is figures["treatments"][0]["placed"] is None
    assert figures["crowd"][1]["distinct"] == figures["data"]["distinct_texts"]
    assert 0 < figures["ceiling"]["ids"] < 1
    assert figures["auc_note"] == "not asked for"
    assert "cannot be known without the key" in capsys.readouterr().out
    assert "By rank, at most" in out.read_text()


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("1 2\t3\n" * 200, "0 labelled rows are too few; it takes 100"),
        ("1 2\t3\t1\n" * 200, "0 separate groups of pairs cannot fill 5 folds"),
        ("".join(f"{k}\t{k + 1000}\t1\n" for k in range(200)), "every fold needs rows of both"),
    ],
)
def test_where_no_auc_can_be_measured_it_says_why(tmp_path, rows, reason):
    path = tmp_path / "rows.tsv"
    path.write_text(rows)
    assert main(["audit", str(path), "--out", str(tmp_path / "audit.html")]) == 0
    figures = json.loads((tmp_path / "audit.json").read_text())
    assert reason in figures["auc_note"]
    assert reason in (tmp_path / "audit.html").read_text()


def test_a_file_with_shared_numbers_is_measured_without_them(published, tmp_path):
    words = ["anonymize", published / "train.tsv", "--out", tmp_path / "out"]
    words += ["--key", tmp_path / "key", "--min-count", "30"]
    assert main([str(word) for word in words]) == 0
    out = tmp_path / "audit.html"
    words = ["audit", tmp_path / "out", "--key", tmp_path / "key", "--out", out, "--auc-rows", "0",
             "--public-counts", published / "counts.json"]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    figures = json.loads(out.with_suffix(".json").read_text())
    assert figures["data"]["ids_not_in_key"] == 0
    assert figures["attack"]["ids_in_corpus"] == figures["data"]["distinct_ids"] - 1


def test_ids_of_another_key_are_said_to_be_outside(published, tmp_path):
    (tmp_path / "more.tsv").write_text("1 2\t3\n")
    out = tmp_path / "audit.html"
    words = ["audit", published / "out", tmp_path / "more.tsv", "--key", published / "key.json"]
    words += ["--out", out, "--auc-rows", "0"]
    assert main([str(word) for word in words]) == 0
    figures = json.loads(out.with_suffix(".json").read_text())
    assert figures["data"]["ids_not_in_key"] == 3
    assert any("3 ids are not in the key" in step for step in figures["next_steps"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--key", "other"], "knows none of the numbers"),
        (["--key", "none"], "none: no such file; name the key"),
        (["--public-pairs", "corpus.tsv"], "--public-pairs needs --key FILE beside it"),
        (["--public-counts", "none"], "none: no such file"),
        (["--out", "."], ".: expected a file to write, got a folder"),
    ],
)
def test_a_wrong_command_is_one_clear_error(
    published, tmp_path, capsys, monkeypatch, options, reason
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.tsv").write_text("x\ty\n")
    assert main(["anonymize", "plain.tsv", "--out", "o", "--key", "other"]) == 0
    (tmp_path / "corpus.tsv").write_text("x\ty\n")
    before = sorted(tmp_path.iterdir())
    capsys.readouterr()
    assert main(["audit", str(published / "out"), *options]) == 2
    assert reason in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_the_page_opens_without_a_word_or_a_request(browser, measured):
    context = browser.new_context(viewport={"width": 375, "height": 800})
    page, complaints, asked = context.new_page(), [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(measured[1].as_uri())
    assert page.locator("figure.plot svg").count() == 2
    assert page.locator("#treatments tbody tr").count() == len(measured[0]["treatments"])
    assert "Placed right by neighbours" in page.locator("h1").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert "None" not in page.locator("main").inner_text()
    page.locator("#plot-cost .canvas").focus()
    page.locator("#plot-cost .canvas").press("ArrowRight")
    assert "--min-count" in page.locator("#plot-cost .tip").inner_text() or "as they are" in (
        page.locator("#plot-cost .tip").inner_text()
    )
    assert complaints == []
    assert [url for url in asked if not url.startswith("data:")] == [measured[1].as_uri()]
    context.close()
