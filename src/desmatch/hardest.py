"""The held-out rows a model is most wrong about, and the training rows most like them.

Shapes: B held-out rows, N labelled rows, V distinct ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.neighbors import NearestNeighbors

from desmatch.data.read import column, split_ids
from desmatch.prepare import Prepared, training_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUM_HARDEST = 20
"""Rows that are shown."""

NUM_NEAREST = 3
"""Training rows that are shown for each."""


def hardest_rows(
    prepared: Prepared,
    row: NDArray[np.int64],
    fold: NDArray[np.int32],
    scores: NDArray[np.float64],
) -> list[dict[str, Any]]:
    """Return the rows with the largest log loss, each with its nearest training rows.

    Near is the cosine of the TF-IDF vectors of a pair's ids, both texts together, so the order of
    the texts does not matter. Only rows that trained while the row's fold was held out count.

    Args:
        prepared: Labelled rows.
        row: (B,), places of the held-out rows among the labelled ones.
        fold: (B,), the fold each was held out with.
        scores: (B,), float, in [0, 1].
    """
    labels = prepared.train_column("label")[row]
    error = np.where(labels == 1, 1 - scores, scores)  # as the loss orders them
    hardest = np.argsort(-error, kind="stable")[:NUM_HARDEST]
    vectors = pair_vectors(prepared)
    found: dict[int, list[dict[str, Any]]] = {}
    for held_out in np.unique(fold[hardest]):
        of_fold = hardest[fold[hardest] == held_out]
        trained = np.flatnonzero(training_mask(prepared, int(held_out)))
        search = NearestNeighbors(n_neighbors=min(NUM_NEAREST, len(trained)), metric="cosine")
        distance, place = search.fit(vectors[trained]).kneighbors(vectors[row[of_fold]])
        for each, gaps, nearest in zip(of_fold, distance, trained[place], strict=True):
            similar = [{**_text_of(prepared, other), "similarity": float(np.clip(1 - gap, 0, 1))}
                       for other, gap in zip(nearest, gaps, strict=True)]  # fmt: skip
            found[int(each)] = similar
    return [
        {
            "row": int(row[each]),
            **_text_of(prepared, row[each]),
            "score": float(scores[each]),
            "nearest": found[int(each)],
        }
        for each in hardest
    ]


def pair_vectors(prepared: Prepared) -> csr_array:
    """Return (N, V), sparse, the TF-IDF vector of each labelled pair's ids, length 1."""
    rows = prepared.rows["train"]
    sides = [chunk for side in ("a", "b") for chunk in column(rows, side).chunks]
    ids = split_ids(pa.chunked_array(sides, "string"))
    shape = len(rows), len(ids.dictionary)
    starts = np.split(ids.offsets[:-1], 2)
    ends = np.split(ids.offsets[1:], 2)
    counts = csr_array(shape, dtype=np.float64)
    for first, last in zip(starts, ends, strict=True):
        codes = ids.codes[first[0] : last[-1]]
        offsets = np.concatenate([first, last[-1:]]) - first[0]
        counts = counts + csr_array((np.ones(len(codes)), codes, offsets), shape=shape)
    return TfidfTransformer().fit_transform(counts)


def _text_of(prepared: Prepared, row: int) -> dict[str, Any]:
    """Return where a labelled row stands and what it says."""
    found = prepared.rows["train"][int(row)]
    return {name: found[name] for name in ("file", "line", "label", "a", "b")}
