"""How many pairs are lost where a component larger than a fold is cut, and how long the cut takes.

    python benchmarks/bench_partition.py [--data DIR ...] [--quick]

Generated components of about 100,000 pairs, and the largest component of each folder's labelled and
test pairs together, cut into parts of at most half a fold, for 5 and 10 folds; beside it what
stretches of the reverse Cuthill-McKee order of the texts lose. Seconds are those of the processor;
the last line has the same as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse.csgraph import reverse_cuthill_mckee

from desmatch.data.graph import adjacency, build_graph, number_texts
from desmatch.data.partition import partition
from desmatch.data.read import column, read_pairs
from desmatch.intake import find_sources

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Edges = tuple[NDArray[np.int64], NDArray[np.int64]]


def largest_component(a: NDArray[np.int64], b: NDArray[np.int64]) -> Edges:
    """Return the pairs of the largest component, its texts numbered anew."""
    component = build_graph(a, b).pair_component
    kept = component == np.bincount(component).argmax()
    numbers = np.unique(np.concatenate([a[kept], b[kept]]), return_inverse=True)[1]
    return numbers[: kept.sum()], numbers[kept.sum() :]


def star(size: int) -> Edges:
    """Return a hub and its partners."""
    return np.zeros(size, np.int64), np.arange(1, size + 1)


def star_of_stars(size: int) -> Edges:
    """Return a hub of 300 hubs of as many partners each."""
    hub = np.arange(1, 301)
    leaf = 301 + np.arange(size // 300 * 300)
    inner = np.repeat(hub, size // 300)
    return np.concatenate([np.zeros(300, np.int64), inner]), np.concatenate([hub, leaf])


def chain_of_cliques(size: int) -> Edges:
    """Return cliques of 12 texts, one pair from each to the next."""
    first = 12 * np.arange(size // 67)
    i, j = np.triu_indices(12, 1)
    a, b = (first[:, None] + i).ravel(), (first[:, None] + j).ravel()
    return np.concatenate([a, first[:-1]]), np.concatenate([b, first[1:]])


def communities(size: int) -> Edges:
    """Return random pairs within communities of 100 texts, 5 % of them between two."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, size * 3 // 5, size)
    b = a // 100 * 100 + rng.integers(0, 100, size)
    between = rng.random(size) < 0.05
    b[between] = rng.integers(0, size * 3 // 5, between.sum())
    return largest_component(a, b)


def hubs(size: int) -> Edges:
    """Return hubs of unequal size, a tenth of whose partners are another hub's as well."""
    rng = np.random.default_rng(0)
    degrees = np.minimum(5 * rng.zipf(1.6, size), size // 5)
    hub = np.repeat(np.arange(size), degrees)[:size]
    leaf = size + np.arange(size)
    shared = rng.random(size) < 0.1
    leaf[shared] = rng.choice(leaf, shared.sum())
    return largest_component(hub, leaf)


def zipf(size: int) -> Edges:
    """Return pairs of which both texts are drawn by Zipf's law."""
    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, size * 3 // 5 + 1) ** 0.8
    a, b = rng.choice(len(weights), (2, size), p=weights / weights.sum())
    return largest_component(a, rng.permutation(len(weights))[b])


def at_random(size: int) -> Edges:
    """Return pairs of texts drawn alike, 2.4 a text."""
    return largest_component(*np.random.default_rng(0).integers(0, size * 5 // 6, (2, size)))


def of_folder(folder: Path, size: int) -> Edges:
    """Return the largest component of labelled and test pairs, at most `size` of its pairs."""
    sources = find_sources(folder)
    tables = [
        read_pairs(sources.train, labels="required").rows,
        read_pairs([sources.test], labels="absent").rows,
    ]
    sides = [column(table, side) for side in ("a", "b") for table in tables]
    numbers = number_texts(sides)
    a, b = np.concatenate(numbers[:2]), np.concatenate(numbers[2:])
    first, second = largest_component(a, b)
    return first[:size], second[:size]


MAKERS: dict[str, Callable[[int], Edges]] = {
    "one star": star,
    "star of 300 stars": star_of_stars,
    "chain of cliques": chain_of_cliques,
    "communities": communities,
    "hubs": hubs,
    "Zipf's law": zipf,
    "random": at_random,
}


def by_order(a: NDArray[np.int64], b: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """(T,), stretches of about `limit` pairs of the reverse Cuthill-McKee order."""
    num_texts = int(max(a.max(), b.max())) + 1
    links = adjacency(np.concatenate([a, b]), np.concatenate([b, a]), num_texts).tocsr()
    order = reverse_cuthill_mckee(links.astype(np.int32), symmetric_mode=True)
    degree = np.bincount(np.concatenate([a, b]), minlength=num_texts)
    part = np.empty(num_texts, np.int64)
    part[order] = np.cumsum(degree[order]) // (2 * limit)
    return part


def measured(a: NDArray[np.int64], b: NDArray[np.int64], num_folds: int) -> dict[str, float]:
    """Return the share of pairs that is lost by either cut, and the seconds of ours."""
    limit = max(1, len(a) // num_folds // 2)
    num_texts = int(max(a.max(), b.max())) + 1
    start = time.process_time()
    part = partition(a, b, num_texts=num_texts, limit=limit, rng=np.random.default_rng(0))
    seconds = time.process_time() - start
    order = by_order(a, b, limit)
    return {
        "pairs": len(a),
        "lost": round(float((part[a] != part[b]).mean()), 4),
        "lost_by_order": round(float((order[a] != order[b]).mean()), 4),
        "seconds": round(seconds, 3),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, action="append", default=[], help="folder of pairs")
    parser.add_argument("--quick", action="store_true", help="components of 10,000 pairs")
    options = parser.parse_args()
    size = 10_000 if options.quick else 100_000
    makers: dict[str, Callable[[int], Edges]] = {
        **MAKERS,
        **{str(path): partial(of_folder, path) for path in options.data},
    }
    figures = []
    print(f"{'component':<24}{'pairs':>8}{'folds':>7}{'lost':>8}{'by order':>10}{'seconds':>9}")
    for name, make in makers.items():
        a, b = make(size)
        for num_folds in (5, 10):
            line = measured(a, b, num_folds)
            figures.append({"component": name, "folds": num_folds, **line})
            print(f"{name:<24}{len(a):>8}{num_folds:>7}{line['lost']:>8.1%}"
                  f"{line['lost_by_order']:>10.1%}{line['seconds']:>9.2f}")  # fmt: skip
    print(json.dumps({"benchmark": "partition", "figures": figures}))


if __name__ == "__main__":
    main()
