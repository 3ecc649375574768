from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from desmatch.errors import UserError
from desmatch.matcher import PairMatcher


@pytest.fixture(scope="module")
def matcher(finished_run):
    return PairMatcher.from_pretrained(finished_run)


@pytest.fixture(scope="module")
def test_pairs(sample_folder):
    lines = (sample_folder / "test.tsv").read_text().splitlines()
    return [tuple(line.split("\t")) for line in lines]


def test_the_probabilities_are_the_submission(matcher, test_pairs, finished_run):
    scores = pq.read_table(finished_run / "predictions" / "test.parquet")["score"].to_numpy()
    probs = matcher.predict_proba(test_pairs)
    np.testing.assert_allclose(probs[:, 1], scores, atol=1e-6)
    np.testing.assert_allclose(probs.sum(axis=1), 1)
    submitted = np.loadtxt(finished_run / "submission" / "result.tsv")
    np.testing.assert_allclose(submitted, scores, rtol=1e-8)


def test_predictions_are_the_likelier_label(matcher, test_pairs):
    probs = matcher.predict_proba(test_pairs)
    np.testing.assert_array_equal(
        matcher.predict(test_pairs), matcher.classes_[probs.argmax(axis=1)]
    )


def test_texts_may_be_strings_or_lists_of_ids(matcher, test_pairs):
    a, b = test_pairs[0]
    as_lists = ([int(i) for i in a.split()], b.split())
    np.testing.assert_array_equal(
        matcher.predict_proba([(a, f"  {b} ")]), matcher.predict_proba([as_lists])
    )


def test_one_models_folder_is_enough(finished_run, matcher, test_pairs):
    alone = PairMatcher.from_pretrained(finished_run / "fold-0" / "finetuned")
    np.testing.assert_array_equal(
        alone.predict_proba(test_pairs[:5]), matcher.predict_proba(test_pairs[:5])
    )


def test_no_pairs_give_no_probabilities(matcher):
    assert matcher.predict_proba([]).shape == (0, 2)


def test_an_empty_text_is_refused(matcher):
    with pytest.raises(UserError, match="pair 2: a text is empty"):
        matcher.predict_proba([("1", "2"), ("3", " ")])
