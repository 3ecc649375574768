"""Rows without labels on disk: written block by block, and mapped into memory where they are read.

Token ids lie flat and unpadded, as in nanoGPT's train.bin, with the offsets of the texts beside
them: a batch reads its own rows and nothing else. Shapes: B pairs, N ids of all texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from desmatch.data.vocabulary import EncodedPairs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from datasets import Dataset

    from desmatch.data.vocabulary import Vocabulary

ROWS, IDS, OFFSETS = "rows.arrow", "ids.bin", "offsets.bin"

ENCODED_ROWS = 1 << 16
"""Pairs that are encoded at a time."""

SCHEMA = pa.schema(
    [
        ("a", pa.string()),
        ("b", pa.string()),
        ("label", pa.int8()),
        ("file", pa.int16()),
        ("line", pa.int32()),
    ]
)


class RowsWriter:
    """Writes rows to a folder as they come; to be used in a `with`.

    Args:
        folder: Is made; gets an Arrow stream.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._writer = pa.ipc.new_stream(str(folder / ROWS), SCHEMA)

    def write(self, rows: pa.Table) -> None:
        """Add rows with the columns of `SCHEMA`."""
        self._writer.write_table(rows)

    def __enter__(self) -> RowsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()


def open_rows(folder: Path) -> Dataset:
    """Map the rows of a folder.

    Raises:
        OSError, pa.ArrowException: There are none, or the file is broken.
    """
    from datasets import Dataset

    return Dataset.from_file(str(folder / ROWS))


def write_encoded(folder: Path, vocabulary: Vocabulary, *, num_rows: int) -> None:
    """Encode the rows of a folder and write their ids and offsets beside them."""
    end = np.zeros(1, np.int64)
    with (
        (folder / IDS).open("wb") as ids,
        (folder / OFFSETS).open("wb") as offsets,
        tqdm(total=num_rows, desc="encoding", unit="row", delay=2, leave=False) as bar,
    ):
        end.tofile(offsets)
        for rows in _stored_rows(folder):
            pairs = vocabulary.encode(rows["a"], rows["b"])
            pairs.ids.tofile(ids)
            (pairs.offsets[1:] + end).tofile(offsets)
            end += pairs.offsets[-1]
            bar.update(len(rows))


def _stored_rows(folder: Path) -> Iterator[pa.Table]:
    """Yield the rows of a folder a few at a time; they are read, not mapped."""
    with pa.OSFile(str(folder / ROWS)) as file, pa.ipc.open_stream(file) as batches:
        for batch in batches:
            rows = pa.Table.from_batches([batch])
            for start in range(0, len(rows), ENCODED_ROWS):
                yield rows.slice(start, ENCODED_ROWS)


def open_encoded(folder: Path, *, num_rows: int) -> EncodedPairs:
    """Map what `write_encoded` wrote.

    Raises:
        OSError: It is missing, or not whole.
    """
    ids = np.asarray(np.memmap(folder / IDS, np.int32, "r"))
    offsets = np.asarray(np.memmap(folder / OFFSETS, np.int64, "r"))
    if len(offsets) != 2 * num_rows + 1 or offsets[-1] != len(ids):
        raise OSError(f"{folder}: {IDS} and {OFFSETS} are not of its {num_rows} rows")
    if offsets[0] != 0 or not _never_falls(folder / OFFSETS, len(offsets)):
        raise OSError(f"{folder}: {OFFSETS} is damaged")
    return EncodedPairs(ids, offsets)


def _never_falls(path: Path, length: int) -> bool:
    """Whether no offset is less than the one before; they are read, not mapped."""
    blocks = (
        np.fromfile(path, np.int64, ENCODED_ROWS + 1, offset=8 * start)
        for start in range(0, length - 1, ENCODED_ROWS)
    )
    return all((np.diff(block) >= 0).all() for block in blocks)
