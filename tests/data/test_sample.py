"""The toy language: well-formed, reproducible, hard for counting words."""

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from desmatch.data.sample import (
    LanguageConfig,
    Speaker,
    build_grammar,
    draw,
    numbering,
    write_sample,
)
from desmatch.errors import UserError

COMMITTED = Path(__file__).parents[2] / "data" / "sample"
NAMES = ("train.tsv", "test.tsv", "test_labels.tsv", "unlabeled.tsv")
SMALL = {"num_train": 60, "num_test": 20, "num_unlabeled": 30}


def read(path):
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder)
    return folder


@pytest.fixture
def speaker():
    rng = np.random.default_rng(3)
    config = LanguageConfig()
    return Speaker(grammar=build_grammar(config, rng), config=config, rng=rng)


@pytest.fixture
def concept_of(speaker):
    return {word: c for c, words in enumerate(speaker.grammar.synonyms) for word in words}


def test_committed_sample_is_what_the_code_writes(sample):
    for name in NAMES:
        assert (COMMITTED / name).read_bytes() == (sample / name).read_bytes(), (
            f"data/sample/{name} is not what write_sample writes; make it again"
        )


def test_same_seed_same_bytes_another_seed_differs(tmp_path):
    for folder, seed in (("one", 1), ("again", 1), ("two", 2)):
        write_sample(tmp_path / folder, seed=seed, **SMALL)
    for name in NAMES:
        one, again, two = ((tmp_path / f / name).read_bytes() for f in ("one", "again", "two"))
        assert one == again
        assert one != two


def test_files_have_the_rows_and_columns_that_were_asked_for(tmp_path):
    write_sample(tmp_path, **SMALL)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)
    shapes = {name: [len(row) for row in read(tmp_path / name)] for name in NAMES}
    assert shapes == {
        "train.tsv": [3] * 60,
        "test.tsv": [2] * 20,
        "test_labels.tsv": [1] * 20,
        "unlabeled.tsv": [2] * 30,
    }


def test_every_row_is_well_formed(sample):
    known = {str(number) for number in range(1, 1000)}
    for name in ("train.tsv", "test.tsv", "unlabeled.tsv"):
        for row in read(sample / name):
            for text in row[:2]:
                ids = text.split(" ")
                assert 3 <= len(ids) <= 12
                assert known.issuperset(ids)
    labels = [row[2] for row in read(sample / "train.tsv")]
    labels += [row[0] for row in read(sample / "test_labels.tsv")]
    assert set(labels) == {"0", "1"}


def test_bytes_are_plain(sample):
    assert sum((sample / name).stat().st_size for name in NAMES) < 2_000_000
    for name in NAMES:
        data = (sample / name).read_bytes()
        assert data.endswith(b"\n")
        assert b"\r" not in data


def test_share_of_positives(sample):
    train = [int(row[2]) for row in read(sample / "train.tsv")]
    test = [int(row[0]) for row in read(sample / "test_labels.tsv")]
    assert 0.3 < np.mean(train) < 0.42
    assert 0.3 < np.mean(test) < 0.42


def test_most_texts_in_one_pair_and_some_hubs(sample):
    train = Counter(text for row in read(sample / "train.tsv") for text in set(row[:2]))
    pairs_of = np.array(list(train.values()))
    assert np.mean(pairs_of == 1) > 0.8
    assert 15 <= pairs_of.max() <= 40
    unseen = [text not in train for row in read(sample / "test.tsv") for text in row]
    assert 0.8 < np.mean(unseen) < 1


def test_counting_words_is_not_enough(sample):
    train, test = read(sample / "train.tsv"), read(sample / "test.tsv")
    rows = [*train, *test, *read(sample / "unlabeled.tsv")]
    tfidf = TfidfVectorizer(token_pattern=r"\S+").fit([text for row in rows for text in row[:2]])

    def features(pairs):
        a, b = (tfidf.transform([pair[side] for pair in pairs]) for side in (0, 1))
        return sp.hstack([a.multiply(b), abs(a - b)]).tocsr()

    model = LogisticRegression(max_iter=1000)
    model.fit(features(train), [int(row[2]) for row in train])
    labels = [int(row[0]) for row in read(sample / "test_labels.tsv")]
    assert 0.7 < roc_auc_score(labels, model.decision_function(features(test))) < 0.85


def test_label_says_whether_the_concepts_are_equal(speaker, concept_of):
    def meaning(text):
        return sorted(concept_of[word] for word in text if word in concept_of)

    agrees = [
        (meaning(a) == meaning(b)) == bool(label) for a, b, label in islice(speaker.pairs(), 3000)
    ]
    assert 1 - np.mean(agrees) == pytest.approx(speaker.config.noise, abs=0.006)


@pytest.mark.parametrize("num_changes", [1, 2])
def test_changed_meaning_differs_in_so_many_concepts(speaker, num_changes):
    for _ in range(200):
        meaning = speaker.meaning()
        other = speaker.changed(meaning, num_changes)
        differ = [c != d for c, d in zip(meaning.concepts, other.concepts, strict=True)]
        assert sum(differ) == num_changes
        assert meaning.frame == other.frame


def test_reworded_keeps_the_meaning(speaker, concept_of):
    for _ in range(200):
        query = speaker.query()
        said = speaker.reworded(query.words, query.meaning)
        assert tuple(concept_of[word] for word in said) == query.meaning.concepts


def test_every_word_has_one_role(speaker):
    grammar = speaker.grammar
    words = [word for words in grammar.synonyms for word in words]
    words += [*grammar.particles, *grammar.fillers]
    assert sorted(words) == list(range(grammar.num_words))


def test_numbering_is_a_permutation():
    numbers = numbering(50, np.random.default_rng(0))
    assert sorted(map(int, numbers)) == list(range(1, 51))
    assert list(map(int, numbers)) != list(range(1, 51))


def test_ranks_are_drawn_as_zipf_says():
    rng = np.random.default_rng(0)
    drawn = np.bincount([draw(range(4), 1.0, rng) for _ in range(20_000)], minlength=4) / 20_000
    expected = np.array([1, 1 / 2, 1 / 3, 1 / 4]) / (25 / 12)
    np.testing.assert_allclose(drawn, expected, atol=0.01)


def test_some_ids_are_much_commoner_than_others(sample):
    rows = read(sample / "unlabeled.tsv")
    counts = sorted(Counter(i for row in rows for text in row for i in text.split()).values())
    assert counts[-1] > 6 * counts[0]


def test_negative_sizes_are_all_named(tmp_path):
    expected = "num_train: expected 0 or more, got -1\nnum_test: expected 0 or more, got -2"
    with pytest.raises(UserError) as error:
        write_sample(tmp_path, num_train=-1, num_test=-2)
    assert str(error.value) == expected
    assert not list(tmp_path.iterdir())
