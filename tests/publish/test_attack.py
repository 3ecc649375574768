"""The expected shares of an attack against all ways to break ties, and graphs that are known."""

from __future__ import annotations

from itertools import pairwise, permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from desmatch.publish.attack import chance_placed, rank_attack, shares, truth_of
from desmatch.publish.audit import as_tokens, frequency_curve
from desmatch.publish.coded import read_coded
from desmatch.publish.neighbours import follows, match, neighbour_attack, read_corpus
from desmatch.publish.tokens import auto_tokens


def rankings(counts):
    """Yield every order of names in which counts fall."""
    return [
        order
        for order in permutations(counts)
        if all(counts[one] >= counts[two] for one, two in pairwise(order))
    ]


@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
    st.permutations(range(4)),
    st.integers(0, 2),
)
def test_the_chance_is_the_share_of_all_ways_to_break_ties(counts, corpus, pairing, off):
    ids = dict(enumerate(counts))
    public = dict(enumerate(corpus))
    tokens = [pairing[each] if pairing[each] in public else None for each in ids]
    named = truth_of(
        np.array(counts), [str(each) if each is not None else "none" for each in tokens],
        {str(token): count for token, count in public.items()},
    )  # fmt: skip
    found = chance_placed(named, off)
    ways = [*product(rankings(ids), rankings(public))]
    for each, token in zip(ids, tokens, strict=True):
        near = [
            token is not None and abs(ours.index(each) - theirs.index(token)) <= off
            for ours, theirs in ways
        ]
        assert found[each] == pytest.approx(np.mean(near))


def test_ids_that_stand_for_several_tokens_are_left_out_of_the_ranks():
    truth = truth_of(np.array([9, 5, 3]), [None, "a", "b"], {"a": 50, "b": 20, "c": 1})
    assert chance_placed(truth).tolist() == [0, 1, 1]
    found = rank_attack(truth)
    assert found["ids"] == pytest.approx(2 / 3)
    assert found["occurrences"] == pytest.approx(8 / 17)
    assert found["ids_in_corpus"] == 2
    assert found["tops"][-1] == {"top": 3, "ids": found["ids"], "occurrences": 8 / 17}


def test_the_rank_correlation_is_scipys():
    rng = np.random.default_rng(0)
    counts, public = rng.integers(1, 50, 40), rng.integers(1, 500, 40)
    tokens = [str(number) for number in range(40)]
    truth = truth_of(counts, tokens, dict(zip(tokens, public.tolist(), strict=True)))
    assert rank_attack(truth)["spearman"] == pytest.approx(spearmanr(counts, public).statistic)
    flat = truth_of(np.full(40, 7), tokens, dict.fromkeys(tokens, 3))
    assert rank_attack(flat)["spearman"] is None


def test_the_top_ids_are_the_most_frequent():
    counts = np.arange(20, 0, -1)
    tokens = [str(number) for number in range(20)]
    corpus = dict(zip(tokens, [*range(40, 30, -1), *range(1, 11)], strict=True))
    top, whole = rank_attack(truth_of(counts, tokens, corpus))["tops"]
    assert top == {"top": 10, **shares(np.ones(10), counts[:10])}
    assert whole["ids"] < 1


def test_a_corpus_counts_what_can_be_a_token_there():
    counts = {"Pay": 5, "pay": 2, "##ing": 9, "[UNK]": 9, "\uff50ay": 1}
    auto = {"kind": "auto", "lowercase": False}
    assert as_tokens(counts, auto) == {"Pay": 5, "pay": 3}
    assert as_tokens(counts, auto | {"lowercase": True}) == {"pay": 8}
    assert as_tokens(counts, {"kind": "tokenizer"}) == counts


def test_a_curve_falls_from_the_first_rank_to_the_last():
    curve = frequency_curve(np.arange(1, 1001))
    assert curve["rank"][0] == 1
    assert curve["rank"][-1] == 1000
    assert curve["share"] == sorted(curve["share"], reverse=True)
    assert frequency_curve([]) == {"rank": [], "share": []}


def test_a_corpus_is_cut_into_texts_and_empty_ones_are_left_out():
    corpus = read_corpus(["b a", " ", "a"], auto_tokens)
    assert corpus.counts == {"b": 1, "a": 2}
    assert corpus.offsets.tolist() == [0, 2, 3]


def test_neighbours_are_counted_within_texts():
    codes, offsets = np.array([0, 1, 2, 1, 0, 1]), np.array([0, 4, 6])
    expected = np.zeros((2, 2))
    expected[0, 1] = 2  # 1 2 and 2 1 have a neighbour that is not chosen, 1 | 0 a text's end
    assert np.allclose(follows(codes, offsets, np.array([0, 1])), np.sqrt(expected / 2))


@pytest.mark.parametrize("size", [1, 2, 30])
def test_a_renamed_graph_is_recognised(size):
    rng = np.random.default_rng(size)
    graph = rng.random((size, size)) ** 6
    hidden = rng.permutation(size)
    renamed = graph[np.ix_(hidden, hidden)]
    start = np.full((size, size), 0.01)
    start[np.arange(size), hidden] += 0.02
    assert match(renamed, graph, start).tolist() == hidden.tolist()


def test_who_has_the_very_texts_reads_them_all(tmp_path):
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.full(12, 0.3), size=12)
    words = [f"w{k}" for k in range(12)]
    texts = []
    for _ in range(400):
        text = [int(rng.integers(12))]
        while len(text) < 6:
            text.append(int(rng.choice(12, p=weights[text[-1]])))
        texts.append(text)
    numbers = (rng.permutation(12) + 100).tolist()
    path = tmp_path / "rows.tsv"
    lines = [" ".join(str(numbers[each]) for each in text) for text in texts]
    path.write_text("".join(f"{a}\t{b}\n" for a, b in zip(lines[::2], lines[1::2], strict=True)))
    pairs = read_coded([path])
    tokens = [words[numbers.index(int(each))] for each in pairs.ids]
    corpus = read_corpus([" ".join(words[each] for each in text) for text in texts], str.split)
    truth = truth_of(pairs.counts, tokens, corpus.counts)
    found = neighbour_attack(pairs, truth, tokens, corpus)
    assert found["by_neighbours"] == {"ids": 1.0, "occurrences": 1.0}
    assert found["top"] == 12
    assert found["share_of_occurrences"] == 1
