"""What the prepared data is like: its files, its query graph, its drift, and what to beware of.

Shapes: B labelled pairs, T rows of the test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.sparse.csgraph import breadth_first_order

from desmatch.data.closure import UNKNOWN, infer_closure
from desmatch.data.drift import effective_share
from desmatch.data.graph import adjacency, find_repeats, pair_keys
from desmatch.data.read import column
from desmatch.data.summary import quantile
from desmatch.metrics.intervals import bootstrap_auc
from desmatch.runs import file_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from datasets import Dataset
    from numpy.typing import NDArray

    from desmatch.data.closure import Closure
    from desmatch.data.drift import Drift
    from desmatch.data.graph import QueryGraph, RowsOfOnePair
    from desmatch.data.split import Folds
    from desmatch.data.summary import Summary
    from desmatch.data.vocabulary import Vocabulary
    from desmatch.recipe import Recipe

REJECTED = "rejected.tsv"

HIGH_OOV_SHARE = 0.1
"""Above this share of unknown ids a file gets a warning."""


NUM_EXAMPLES = 5
"""Rows shown of each kind."""

NUM_HUBS = 5
"""Texts shown that stand in the most pairs."""

STRONG_DRIFT = 0.6
"""Where the discriminator's AUC is surely above this, the data gets a warning."""


def file_figures(
    role: str, paths: Sequence[Path], summary: Summary, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the figures of all files of a role together.

    Of more distinct texts than are counted one by one, `distinct_texts` is an estimate, and
    `share_of_texts_counted` says from how many.
    """
    share = summary.texts.share
    lengths, num_rows = summary.lengths, summary.num_rows
    return {
        "role": role,
        "path": ", ".join(str(path) for path in paths),
        "sha256": [file_digest(path) for path in paths],
        "rows": num_rows,
        "distinct_texts": summary.texts.estimate(),
        **({"share_of_texts_counted": share} if share < 1 else {}),
        "positives": summary.num_positive / num_rows if role == "train" else None,
        "oov_share": vocabulary.oov_share(summary.counts()),
        **({name: value(lengths) for name, value in _LENGTHS.items()} if num_rows else {}),
    }


_LENGTHS: dict[str, Callable[[NDArray[np.int64]], float]] = {
    "mean_length": lambda lengths: float(np.arange(len(lengths)) @ lengths / lengths.sum()),
    "median_length": lambda lengths: quantile(lengths, 0.5),
    "p99_length": lambda lengths: quantile(lengths, 0.99),
}
"""Ids of both texts together, after truncation."""


class LabelledRows(NamedTuple):
    """The labelled pairs as a graph.

    Attributes:
        graph: Of the B pairs; its texts are numbered from 0.
        labels: (B,), 0 or 1.
        places: (B,), `file:line` of each row.
    """

    graph: QueryGraph
    labels: NDArray[np.int8]
    places: Places


class RowsToScore(NamedTuple):
    """The rows of the test by the numbers of their texts.

    Attributes:
        a: (T,), number of each first text; those of labelled rows come first.
        b: (T,), of each second text.
        places: (T,), `file:line` of each row.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    places: Places


@dataclass(frozen=True)
class Places:
    """Where each row stands.

    Attributes:
        paths: The files of a role.
        file: (rows,), index into `paths`.
        line: (rows,), from 1.
    """

    paths: Sequence[Path]
    file: NDArray[np.int16]
    line: NDArray[np.int32]

    def __getitem__(self, row: int) -> str:
        """`file:line` of a row."""
        return f"{self.paths[self.file[row]]}:{self.line[row]}"

    @classmethod
    def of(cls, rows: Dataset, paths: Sequence[Path]) -> Places:
        """Return the places of a role's rows."""
        return cls(paths, *(np.asarray(column(rows, name)) for name in ("file", "line")))


def graph_figures(labelled: LabelledRows, test: RowsToScore, folds: Folds) -> dict[str, Any]:
    """Return the figures of the query graph, and some rows that show them.

    `repeated_rows` repeat an earlier row, in either order, with its label; `contradicting_rows`
    have the other label elsewhere; `rows_against_closure` have label 0 and texts that other rows
    join by labels 1 (a = b, b = c, a != c). A test row is of a known pair where a labelled row has
    its two texts, and follows where closure alone gives its label.
    """
    graph, labels, _ = labelled
    repeats = find_repeats(graph, labels)
    closure = infer_closure(graph.a, graph.b, labels, num_texts=graph.num_texts)
    contradicts = repeats.other >= 0
    against = closure.contradicted & ~contradicts
    sizes = np.bincount(graph.pair_component)
    return {
        "texts": graph.num_texts,
        "components": len(sizes),
        "largest": int(sizes.max()),
        "components_by_size": size_histogram(sizes),
        "split_components": folds.num_split_components,
        "cut_rows": folds.num_cut,
        "repeated_rows": int(repeats.repeats.sum()),
        "contradicting_rows": int(contradicts.sum()),
        "rows_against_closure": int(against.sum()),
        "hubs": [_hub(labelled, text) for text in _busiest(graph)],
        **_test_figures(labelled, test, closure),
        "examples": _examples(labelled, test, repeats, against),
    }


def _examples(
    labelled: LabelledRows, test: RowsToScore, repeats: RowsOfOnePair, against: NDArray[np.bool_]
) -> dict[str, list[list[str]]]:
    """Return places of a few rows of each kind, each with the rows it is like or contradicts."""
    graph, labels, places = labelled
    contradicts = np.flatnonzero((repeats.other >= 0) & (labels == 0))
    num_texts = int(max(graph.num_texts, test.a.max() + 1, test.b.max() + 1))
    keys = pair_keys(graph.a, graph.b, num_texts)
    test_keys = pair_keys(test.a, test.b, num_texts)
    return {
        "repeated": [
            [places[row], places[repeats.first[row]]] for row in _some(repeats.repeats.nonzero()[0])
        ],
        "contradicting": [[places[row], places[repeats.other[row]]] for row in _some(contradicts)],
        "against_closure": [
            [places[row], *(places[step] for step in equal_path(labelled, row))]
            for row in _some(against.nonzero()[0])
        ],
        "known_in_test": [
            [test.places[row], places[np.flatnonzero(keys == test_keys[row])[0]]]
            for row in _some(np.isin(test_keys, keys).nonzero()[0])
        ],
    }


def _some(rows: NDArray[np.intp]) -> list[int]:
    return [int(row) for row in rows[:NUM_EXAMPLES]]


def _test_figures(labelled: LabelledRows, test: RowsToScore, closure: Closure) -> dict[str, int]:
    """Count how the test's rows touch the graph of the labelled ones."""
    graph = labelled.graph
    known_a, known_b = test.a < graph.num_texts, test.b < graph.num_texts
    num_texts = int(max(graph.num_texts, test.a.max() + 1, test.b.max() + 1))
    known_pair = np.isin(
        pair_keys(test.a, test.b, num_texts), pair_keys(graph.a, graph.b, num_texts)
    )
    follows = ~known_pair & (closure.answers(test.a, test.b) != UNKNOWN)
    return {
        "test_rows_with_known_query": int((known_a | known_b).sum()),
        "test_rows_with_one_known": int((known_a ^ known_b).sum()),
        "test_rows_with_both_known": int((known_a & known_b).sum()),
        "test_rows_of_known_pair": int(known_pair.sum()),
        "test_rows_that_follow": int(follows.sum()),
    }


def size_histogram(sizes: NDArray[np.int64]) -> dict[str, int]:
    """Return how many components have 1, 2, 3 to 4, 5 to 8, ... rows; empty bins are left out."""
    powers = np.ceil(np.log2(sizes)).astype(int)
    return {
        f"{2 ** (power - 1) + 1} to {2**power}" if power > 1 else str(2**power): int(count)
        for power, count in enumerate(np.bincount(powers))
        if count
    }


def _busiest(graph: QueryGraph) -> list[int]:
    """Return the texts of the most pairs; those of one pair alone are no hubs."""
    degree = np.bincount(np.concatenate([graph.a, graph.b]), minlength=graph.num_texts)
    order = np.argsort(-degree, kind="stable")[:NUM_HUBS]
    return [int(text) for text in order if degree[text] > 1]


def _hub(labelled: LabelledRows, text: int) -> dict[str, Any]:
    rows = np.flatnonzero((labelled.graph.a == text) | (labelled.graph.b == text))
    side = "a" if labelled.graph.a[rows[0]] == text else "b"
    return {
        "place": labelled.places[rows[0]],
        "side": side,
        "rows": len(rows),
        "positives": float(labelled.labels[rows].mean()),
    }


def equal_path(labelled: LabelledRows, row: int) -> list[int]:
    """Return the rows of label 1 that lead from one text of `row` to the other, the fewest."""
    graph, labels, _ = labelled
    positives = np.flatnonzero(labels == 1)
    links = adjacency(graph.a[positives], graph.b[positives], graph.num_texts).tocsr()
    start, text = int(graph.a[row]), int(graph.b[row])
    _, before = breadth_first_order(links, start, directed=False)
    keys = pair_keys(graph.a[positives], graph.b[positives], graph.num_texts)
    steps = []
    while text != start:
        step = pair_keys(before[text : text + 1], np.array([text]), graph.num_texts)
        steps.append(int(positives[np.flatnonzero(keys == step)[0]]))
        text = int(before[text])
    return steps[::-1]


def drift_figures(drift: Drift, *, rng: np.random.Generator) -> dict[str, Any]:
    """Return the drift between labelled rows and test; the interval is by components."""
    return {
        "auc": drift.auc,
        "interval": [*bootstrap_auc(drift.is_test, drift.logits, drift.groups, rng=rng)],
        "features": [each._asdict() for each in drift.features],
        "power": drift.power,
        "effective_share": effective_share(drift.weights),
    }


def data_warnings(figures: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """Return what a reader of these figures should know, in sentences."""
    found = [
        f"{each['role']}: {each['oov_share']:.1%} of the ids are rare or unknown; "
        "a lower --data.min_count or --data.rare placeholder keeps more of them apart"
        for each in figures["data"]
        if each["oov_share"] > HIGH_OOV_SHARE
    ]
    graph = figures["graph"]
    if graph["split_components"]:
        found.append(
            f"{graph['split_components']} component(s) of the query graph were larger than one of "
            f"{recipe.validation.num_folds} folds and were cut; {graph['cut_rows']} pairs cross a "
            "cut and are left out of training"
        )
    if figures["rejected_rows"]:
        found.append(f"{figures['rejected_rows']} malformed rows were left out; see {REJECTED}")
    against = graph["contradicting_rows"] + graph["rows_against_closure"]
    if against:
        found.append(
            f"{against} labelled rows contradict others, directly or by closure; "
            "`desmatch inspect` names some"
        )
    drift = figures["drift"]
    if drift["interval"][0] > STRONG_DRIFT:
        names = ", ".join(each["name"] for each in drift["features"][:3])
        found.append(
            f"the test is not like the labelled rows: they are told apart with an AUC of "
            f"{drift['auc']:.3f}, most by {names}; read the weighted figures, which "
            f"{drift['effective_share']:.0%} of the rows stand for"
        )
    return found
