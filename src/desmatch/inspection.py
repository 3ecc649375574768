"""What the prepared data is like: its files, its query graph, its drift, and what to beware of.

Shapes: B labelled pairs, T rows of the test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from desmatch.data.drift import effective_share
from desmatch.data.graph import number_texts, repeated_rows
from desmatch.data.read import column
from desmatch.metrics.intervals import bootstrap_auc
from desmatch.runs import file_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from datasets import Dataset
    from numpy.typing import NDArray

    from desmatch.data.drift import Drift
    from desmatch.data.graph import QueryGraph
    from desmatch.data.split import Folds
    from desmatch.data.vocabulary import Vocabulary
    from desmatch.recipe import Recipe

REJECTED = "rejected.tsv"

HIGH_OOV_SHARE = 0.1
"""Above this share of unknown ids a file gets a warning."""


STRONG_DRIFT = 0.6
"""Where the discriminator's AUC is surely above this, the data gets a warning."""


def file_figures(
    role: str, paths: Sequence[Path], rows: Dataset, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the figures of all files of a role together."""
    a, b = column(rows, "a"), column(rows, "b")
    texts = number_texts([a, b])
    encoded = vocabulary.encode(a, b)
    lengths = encoded.lengths - 3
    labels = column(rows, "label")
    return {
        "role": role,
        "path": ", ".join(str(path) for path in paths),
        "sha256": [file_digest(path) for path in paths],
        "rows": len(rows),
        "distinct_texts": len(np.unique(np.concatenate(texts))),
        "positives": float(pc.mean(labels).as_py()) if role == "train" else None,
        "oov_share": vocabulary.oov_share(a, b),
        **({name: float(value(lengths)) for name, value in _LENGTHS.items()} if len(rows) else {}),
    }


_LENGTHS: dict[str, Any] = {
    "mean_length": np.mean,
    "median_length": np.median,
    "p99_length": lambda lengths: np.percentile(lengths, 99),
}
"""Ids of both texts together, after truncation."""


def graph_figures(
    graph: QueryGraph, folds: Folds, test_a: NDArray[np.int64], test_b: NDArray[np.int64]
) -> dict[str, Any]:
    """Return the figures of the labelled pairs' graph, and how the test (T,) touches it."""
    known_a, known_b = test_a < graph.num_texts, test_b < graph.num_texts
    sizes = np.bincount(graph.pair_component)
    return {
        "components": len(sizes),
        "largest": int(sizes.max()),
        "split_components": folds.num_split_components,
        "repeated_rows": repeated_rows(graph),
        "cut_rows": folds.num_cut,
        "test_rows_with_known_query": int((known_a | known_b).sum()),
        "test_rows_with_both_known": int((known_a & known_b).sum()),
    }


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
    drift = figures["drift"]
    if drift["interval"][0] > STRONG_DRIFT:
        names = ", ".join(each["name"] for each in drift["features"][:3])
        found.append(
            f"the test is not like the labelled rows: they are told apart with an AUC of "
            f"{drift['auc']:.3f}, most by {names}; read the weighted figures, which "
            f"{drift['effective_share']:.0%} of the rows stand for"
        )
    return found
