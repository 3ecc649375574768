"""How long it takes to know one's data: features, query graph, folds, contradictions, drift.

    python benchmarks/bench_graph.py [--quick]

400,000 generated pairs on one processor core. In the first graph a query has one partner or, now
and then, many; in the second every pair joins two random texts, so that one component holds most
pairs and is cut for the folds. The table has the best of some rounds in seconds of the processor,
which other programs on the machine hardly change; the last line has the same as JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy
import sklearn
from bench_read import use_one_core, zipf_texts

from desmatch.data.closure import close
from desmatch.data.counts import count_ids
from desmatch.data.drift import measure_drift
from desmatch.data.features import row_features
from desmatch.data.graph import build_graph, number_texts
from desmatch.data.split import assign_folds
from desmatch.data.vocabulary import fit_vocabulary
from desmatch.inspection import LabelledRows, Places, RowsToScore, graph_figures
from desmatch.recipe import DataConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

NUM_FOLDS = 10
"""Folds that the labelled pairs are dealt to."""

TEST_SHARE = 0.1
"""Share of the pairs that stand for a test."""


class Pairs(NamedTuple):
    """Generated pairs.

    Attributes:
        a: (B,), Arrow texts.
        b: (B,), the second texts.
        labels: (B,), int8.
    """

    a: Any
    b: Any
    labels: NDArray[np.int8]

    @property
    def num_test(self) -> int:
        """Pairs at the end that stand for a test."""
        return int(TEST_SHARE * len(self.labels))


def pairs_of(first: NDArray[np.int64], second: NDArray[np.int64]) -> Pairs:
    """Give every number a text of its own, and label the pairs at random."""
    rng = np.random.default_rng(1)
    texts = zipf_texts(int(max(first.max(), second.max())) + 1, rng)
    labels = (rng.random(len(first)) < 0.3).astype(np.int8)
    return Pairs(texts.take(first), texts.take(second), labels)


def small_components(num_pairs: int) -> Pairs:
    """Return queries of 1 to 200 partners; one partner of twenty is another query's as well."""
    rng = np.random.default_rng(0)
    degrees = np.minimum(rng.zipf(2.2, num_pairs), 200)
    query = np.repeat(np.arange(num_pairs), degrees)[:num_pairs]
    partner = num_pairs + np.arange(num_pairs)
    shared = rng.random(num_pairs) < 0.05
    partner[shared] = rng.choice(partner, shared.sum())
    return pairs_of(query, partner)


def one_component(num_pairs: int) -> Pairs:
    """Return pairs of random texts, 2.7 pairs a text, nearly all in one component."""
    rng = np.random.default_rng(0)
    return pairs_of(*rng.integers(0, int(num_pairs * 0.75), (2, num_pairs)))


def steps_of(pairs: Pairs) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name; what a step needs of earlier ones is made before."""
    counts = count_ids(pairs.a)
    vocabulary = fit_vocabulary(counts, DataConfig())
    a, b = number_texts([pairs.a, pairs.b])
    labels, num_test = pairs.labels, pairs.num_test
    num_labelled = len(labels) - num_test
    graph, joint = build_graph(a[:num_labelled], b[:num_labelled]), build_graph(a, b)
    features = row_features(pairs.a, pairs.b, vocabulary, counts)
    labelled = {name: values[:num_labelled] for name, values in features.items()}
    test = {name: values[num_labelled:] for name, values in features.items()}
    folds = assign_folds(graph, labels[:num_labelled], num_folds=NUM_FOLDS, rng=fresh())
    places = Places([Path("train.tsv")], np.zeros(len(a), np.int16), np.arange(len(a), dtype="i4"))
    rows = LabelledRows(graph, labels[:num_labelled], places)
    to_score = RowsToScore(a[num_labelled:], b[num_labelled:], places)
    return {
        "features": lambda: row_features(pairs.a, pairs.b, vocabulary, counts),
        "graph": lambda: build_graph(*number_texts([pairs.a, pairs.b])),
        "folds": lambda: assign_folds(joint, labels, num_folds=NUM_FOLDS, rng=fresh()),
        "contradictions and test": lambda: graph_figures(rows, to_score, folds),
        "closure": lambda: close(a, b, labels, cap=0.5, rng=fresh()),
        "drift and weights": lambda: measure_drift(labelled, test, joint, rng=fresh()),
    }


def fresh() -> np.random.Generator:
    """Return the same generator for every round."""
    return np.random.default_rng(0)


def best_seconds(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the shortest time of each step in seconds of the processor."""
    best = dict.fromkeys(steps, np.inf)
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.process_time()
            step()
            best[name] = min(best[name], time.process_time() - start)
    return best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rows and rounds")
    quick = parser.parse_args().quick
    num_pairs, rounds = (20_000, 1) if quick else (400_000, 3)
    use_one_core()
    makers = {"small components": small_components, "one component": one_component}
    figures = {}
    for kind, make in makers.items():
        pairs = make(num_pairs)
        seconds = best_seconds(steps_of(pairs), rounds)
        a, b = number_texts([pairs.a, pairs.b])
        graph = build_graph(a, b)
        folds = assign_folds(graph, pairs.labels, num_folds=NUM_FOLDS, rng=fresh())
        largest = int(np.bincount(graph.pair_component).max())
        print(
            f"{kind}: {num_pairs} pairs, one core, best of {rounds} rounds; the largest has "
            f"{largest} pairs; {folds.num_cut / num_pairs:.1%} of the pairs cut"
        )
        print(f"{'':26}{'seconds':>10}{'pairs/s':>12}")
        for name, second in seconds.items():
            print(f"{name:26}{second:>10.3f}{num_pairs / second:>12.0f}")
        figures[kind] = {
            "seconds": {name: round(second, 3) for name, second in seconds.items()},
            "largest": largest,
            "cut": folds.num_cut,
        }
    versions = {"python": platform.python_version(), "scipy": scipy.__version__,
                "sklearn": sklearn.__version__}  # fmt: skip
    about = {"pairs": num_pairs, "folds": NUM_FOLDS, "rounds": rounds}
    print(json.dumps({"benchmark": "graph", **about, **versions, "figures": figures}))


if __name__ == "__main__":
    main()
