"""The query graph: distinct texts are nodes, pairs are edges. Shapes: B pairs, T texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from numpy.typing import NDArray


class QueryGraph(NamedTuple):
    """Who is paired with whom.

    Attributes:
        a: (B,), int64, node of each pair's first text.
        b: (B,), the same for the second text.
        component: (T,), int32, component of each node; components are counted from 0.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    component: NDArray[np.int32]

    @property
    def num_texts(self) -> int:
        """T."""
        return len(self.component)

    @property
    def pair_component(self) -> NDArray[np.int32]:
        """(B,), component of each pair."""
        return self.component[self.a]


def number_texts(columns: list[Any]) -> list[NDArray[np.int64]]:
    """Give every distinct text a number, the same in all columns; Arrow arrays of texts in."""
    arrays = [column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
              for column in columns]  # fmt: skip
    chunks = [chunk.cast(pa.string()) for array in arrays for chunk in array.chunks]
    encoded = pa.chunked_array(chunks, pa.string()).combine_chunks().dictionary_encode()
    numbers = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    ends = np.cumsum([len(array) for array in arrays])
    return np.split(numbers, ends[:-1])


def adjacency(a: NDArray[np.int64], b: NDArray[np.int64], num_texts: int) -> coo_array:
    """Return the (T, T) matrix with a one at every pair."""
    return coo_array((np.ones(len(a), np.int8), (a, b)), shape=(num_texts, num_texts))


def build_graph(a: NDArray[np.int64], b: NDArray[np.int64]) -> QueryGraph:
    """Find the connected components of pairs of numbered texts, (B,) each."""
    num_texts = int(max(a.max(initial=-1), b.max(initial=-1))) + 1
    _, component = connected_components(adjacency(a, b, num_texts), directed=False)
    return QueryGraph(a, b, component.astype(np.int32))


def repeated_rows(graph: QueryGraph) -> int:
    """Count the rows that repeat an earlier pair, in either order."""
    low, high = np.minimum(graph.a, graph.b), np.maximum(graph.a, graph.b)
    return len(low) - len(np.unique(low * graph.num_texts + high))
