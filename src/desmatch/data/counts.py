"""How often each raw id is seen, in memory that grows with the distinct ids, not with the texts.

Shapes: V distinct ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from desmatch.data.read import split_ids
from desmatch.runs import atomic_write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from desmatch.data.read import SplitIds

MERGED_IDS = 1 << 20
"""Counts that wait before they are added up; more wait where more ids are distinct."""

COUNTED_TEXTS = 1 << 17
"""Texts that are split at a time."""

SCHEMA = pa.schema([("id", pa.string()), ("count", pa.int64())])


class IdCounts(Mapping[str, int]):
    """Raw ids and their frequencies as two columns, a tenth of the memory of a dict.

    Args:
        ids: (V,), distinct.
        counts: (V,), int64.
    """

    def __init__(self, ids: pa.Array, counts: NDArray[np.int64]) -> None:
        self.ids, self.counts = ids, counts

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> IdCounts:
        """Return counts of any kind as columns."""
        if isinstance(counts, IdCounts):
            return counts
        return cls(pa.array([*counts], pa.string()), np.array([*counts.values()], np.int64))

    def look_up(self, ids: pa.Array) -> NDArray[np.int64]:
        """Return the frequencies of some ids, 0 where one was not seen."""
        places = pc.fill_null(pc.index_in(ids, value_set=self.ids), len(self.ids))
        counts: NDArray[np.int64] = np.append(self.counts, 0)[np.asarray(places)]
        return counts

    @property
    def by_frequency(self) -> pa.Table:
        """(V,), the columns id and count, highest count first, of equal ones by id."""
        table = pa.table([self.ids, self.counts], SCHEMA)
        return table.sort_by([("count", "descending"), ("id", "ascending")])

    def save(self, path: Path) -> None:
        """Write a Parquet file with the columns id and count."""
        with atomic_write(path) as partial:
            pq.write_table(self.by_frequency, partial)

    @classmethod
    def load(cls, path: Path) -> IdCounts:
        """Read what `save` wrote."""
        return _columns(pq.read_table(path))

    @cached_property
    def _by_id(self) -> dict[str, int]:
        return dict(zip(self.ids.to_pylist(), self.counts.tolist(), strict=True))

    def __getitem__(self, raw_id: str) -> int:
        return self._by_id[raw_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_id)

    def __len__(self) -> int:
        return len(self.ids)


class IdCounter:
    """Adds up counts of ids, however many texts they come from.

    New counts wait until they are as many as those that are added up already, so that each is
    touched a few times only.
    """

    def __init__(self) -> None:
        self._tables = [SCHEMA.empty_table()]

    def add(self, counts: IdCounts) -> None:
        """Add counts of some texts."""
        self._tables.append(pa.table([counts.ids, counts.counts], SCHEMA))
        if sum(map(len, self._tables[1:])) > max(MERGED_IDS, len(self._tables[0])):
            self._merge()

    def total(self) -> IdCounts:
        """Return the sums, ids in any order."""
        self._merge()
        return _columns(self._tables[0])

    def _merge(self) -> None:
        grouped = pa.concat_tables(self._tables).group_by("id", use_threads=False)
        merged = grouped.aggregate([("count", "sum")])
        self._tables = [merged.rename_columns(SCHEMA.names).select(SCHEMA.names).cast(SCHEMA)]


def split_counts(split: SplitIds) -> IdCounts:
    """Return the frequencies of the ids of texts that are split."""
    return IdCounts(split.dictionary, np.bincount(split.codes, minlength=len(split.dictionary)))


def count_ids(*columns: Any) -> IdCounts:  # noqa: ANN401 - Arrow arrays of any chunking
    """Return the frequency of every raw id in columns of texts, Arrow arrays."""
    counter = IdCounter()
    for texts in columns:
        for start in range(0, len(texts), COUNTED_TEXTS):
            counter.add(split_counts(split_ids(texts.slice(start, COUNTED_TEXTS))))
    return counter.total()


def _columns(table: pa.Table) -> IdCounts:
    ids = table["id"].combine_chunks()
    return IdCounts(ids, table["count"].to_numpy())
