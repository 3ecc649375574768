from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from desmatch.hardest import NUM_HARDEST, NUM_NEAREST, hardest_rows, pair_vectors
from desmatch.intake import find_sources
from desmatch.prepare import Prepared, prepare, training_mask
from desmatch.recipe import Recipe, ValidationConfig


@pytest.fixture(scope="module")
def prepared(sample_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    prepare(find_sources(sample_folder), Recipe(validation=ValidationConfig(num_folds=3)), folder)
    return Prepared.load(folder)


def documents(prepared):
    return [f"{row['a']} {row['b']}" for row in prepared.rows["train"]]


def test_vectors_equal_scikit_learns_of_both_texts_together(prepared):
    vectorizer = TfidfVectorizer(token_pattern=r"\S+")
    expected = vectorizer.fit_transform(documents(prepared))
    products = (pair_vectors(prepared) @ pair_vectors(prepared).T).toarray()
    np.testing.assert_allclose(products, (expected @ expected.T).toarray(), atol=1e-12)


def test_the_hardest_rows_have_the_largest_loss_and_their_nearest_trained(prepared):
    rng = np.random.default_rng(0)
    fold = prepared.train_column("fold")
    row = np.flatnonzero(fold >= 0)
    scores = rng.random(len(row))
    found = hardest_rows(prepared, row, fold[row], scores)
    assert len(found) == NUM_HARDEST
    labels = prepared.train_column("label")[row]
    loss = -np.log(np.where(labels == 1, scores, 1 - scores))
    expected = row[np.argsort(-loss, kind="stable")[:NUM_HARDEST]]
    assert [each["row"] for each in found] == expected.tolist()
    vectors = TfidfVectorizer(token_pattern=r"\S+").fit_transform(documents(prepared))
    lines = prepared.train_column("line")
    for each in found:
        assert each["line"] == lines[each["row"]]
        trained = training_mask(prepared, int(fold[each["row"]]))
        similarity = (vectors @ vectors[each["row"]].T).toarray().ravel()
        best = np.sort(similarity[trained])[::-1][:NUM_NEAREST]
        np.testing.assert_allclose([near["similarity"] for near in each["nearest"]], best)
        assert all(trained[lines == near["line"]].any() for near in each["nearest"])
        own = {each["a"], each["b"]}
        assert all(own.isdisjoint({near["a"], near["b"]}) for near in each["nearest"])


def test_sides_do_not_matter(prepared):
    first = pair_vectors(prepared)
    table = prepared.rows["train"].rename_columns({"a": "b", "b": "a"})
    swapped = replace(prepared, rows={**prepared.rows, "train": table})
    second = pair_vectors(swapped)
    np.testing.assert_allclose((first @ first.T).toarray(), (second @ second.T).toarray())
