"""What rows hold, added up block by block: memory is for one block, the distinct ids and a sketch.

Shapes: B pairs, T texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from desmatch.data.counts import IdCounter, split_counts
from desmatch.data.read import split_ids

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from desmatch.data.counts import IdCounts

SUMMED_ROWS = 1 << 16
"""Pairs that are looked at together."""

KEPT_TEXTS = 1 << 21
"""Up to so many distinct texts are counted one by one; beyond, they are estimated."""

HASHED_BYTES = 1 << 20
"""Bytes of texts that are hashed together, so that their products stay in the cache."""


class Summary:
    """Numbers of rows, texts and ids, and how long the pairs are.

    Args:
        room: Ids of a pair that are kept; a longer one counts as one of this length.
    """

    def __init__(self, room: int) -> None:
        self.num_rows = 0
        self.num_positive = 0
        self.lengths = np.zeros(room + 1, np.int64)
        """[k]: pairs of k ids."""
        self.texts = DistinctTexts()
        self._counter = IdCounter()

    def add(self, rows: pa.Table) -> None:
        """Add rows with the columns a, b and label."""
        self.num_rows += len(rows)
        self.num_positive += pc.sum(rows["label"]).as_py() or 0
        for start in range(0, len(rows), SUMMED_ROWS):
            part = rows.slice(start, SUMMED_ROWS)
            texts = pa.chunked_array([*part["a"].chunks, *part["b"].chunks], pa.string())
            split = split_ids(texts)
            self._counter.add(split_counts(split))
            ids = np.diff(split.offsets).reshape(2, -1).sum(axis=0)  # (B,)
            room = len(self.lengths) - 1
            self.lengths += np.bincount(np.minimum(ids, room), minlength=room + 1)
            self.texts.add(texts)

    def counts(self) -> IdCounts:
        """Return how often each id was seen."""
        return self._counter.total()


class DistinctTexts:
    """The number of distinct texts: exact up to `KEPT_TEXTS`, then within about 0.1 %.

    Adaptive sampling (Wegman; Flajolet 1990, 'On adaptive sampling'): only texts whose 64-bit hash
    is below a limit are remembered, and the limit is halved whenever they are too many. What is
    left stands for 1 / share times as many; its relative standard error is 1 / sqrt(remembered).
    """

    def __init__(self) -> None:
        self._halvings = 0
        self._kept = np.empty(0, np.uint64)
        self._waiting: list[NDArray[np.uint64]] = []

    @property
    def share(self) -> float:
        """Of all hashes, those that are remembered; 1: the number is exact."""
        return 0.5**self._halvings

    def add(self, texts: Any) -> None:  # noqa: ANN401 - an Arrow array of texts
        """Add texts, none of which is empty."""
        for chunk in texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]:
            self._waiting.append(self._below_limit(text_hashes(chunk)))
        if sum(map(len, self._waiting)) > KEPT_TEXTS:
            self._merge()

    def estimate(self) -> int:
        """Return the number of distinct texts."""
        self._merge()
        return len(self._kept) << self._halvings

    def _merge(self) -> None:
        self._kept = np.unique(np.concatenate([self._kept, *self._waiting]))
        self._waiting = []
        while len(self._kept) > KEPT_TEXTS:
            self._halvings += 1
            self._kept = self._below_limit(self._kept)

    def _below_limit(self, hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return hashes[hashes <= np.uint64((1 << (64 - self._halvings)) - 1)]


def text_hashes(texts: pa.Array) -> NDArray[np.uint64]:
    """Return 64-bit hashes, the same on every machine: sum of (byte + 1) * weight of its place.

    Multilinear hashing (Carter & Wegman 1979; its highest bits are strongly universal:
    Dietzfelbinger 1996). No text may be empty.

    Args:
        texts: (T,), strings.
    """
    if not len(texts):
        return np.empty(0, np.uint64)
    _, ends, content = texts.buffers()
    offsets = np.frombuffer(ends, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(content, np.uint8)
    weights = _weights(int(np.diff(offsets).max()))
    step = max(1, len(texts) * HASHED_BYTES // max(int(offsets[-1] - offsets[0]), 1))
    parts = [
        _hashes(data, offsets[start : start + step + 1], weights)
        for start in range(0, len(texts), step)
    ]
    return np.concatenate(parts)


def _hashes(
    data: NDArray[np.uint8], offsets: NDArray[np.int32], weights: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    starts = offsets[:-1] - offsets[0]
    place = np.arange(offsets[-1] - offsets[0]) - np.repeat(starts, np.diff(offsets))
    values = data[offsets[0] : offsets[-1]].astype(np.uint64) + np.uint64(1)
    hashes: NDArray[np.uint64] = np.add.reduceat(values * weights[place], starts)
    return hashes


def _weights(longest: int) -> NDArray[np.uint64]:
    """Return random numbers for the places of a text's bytes, always the same."""
    rng = np.random.default_rng(0)
    return rng.integers(1 << 64, size=longest, dtype=np.uint64)


def quantile(histogram: NDArray[np.int64], q: float) -> float:
    """Return what `np.quantile` gives for the values of a histogram; [k]: how often k occurs."""
    ends = np.cumsum(histogram)
    place = (int(ends[-1]) - 1) * q
    low = int(place)
    neighbors = np.searchsorted(ends, [low, min(low + 1, int(ends[-1]) - 1)], side="right")
    return float(np.quantile(neighbors, place - low))
