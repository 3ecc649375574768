"""Shuffle the lines of a file of any size in bounded memory.

Every line is sent to one of several files at random, then each of these is shuffled in memory: a
permutation as uniform as one in memory (Rao 1961; Sandelius 1962).
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

PART_BYTES = 32 << 20
"""How much is shuffled in memory at a time..."""

MOST_PARTS = 500
"""...unless more files would be open at once."""


def shuffle_lines(path: Path, *, rng: np.random.Generator, part_bytes: int = PART_BYTES) -> None:
    """Bring the lines of a file into random order, in place.

    Args:
        path: A file whose lines all end in a newline; an error leaves it half-written.
        rng: Decides the order.
        part_bytes: About how much is held in memory.
    """
    num_parts = min(path.stat().st_size // part_bytes + 1, MOST_PARTS)
    parts = [path.with_name(f"{path.name}.part-{number}") for number in range(num_parts)]
    with ExitStack() as stack, path.open("rb") as lines:
        streams = [stack.enter_context(part.open("wb")) for part in parts]
        for line in lines:
            streams[rng.integers(num_parts)].write(line)
    with path.open("wb") as stream:
        for part in parts:
            lines_of_part = part.read_bytes().splitlines(keepends=True)
            stream.writelines(lines_of_part[place] for place in rng.permutation(len(lines_of_part)))
            part.unlink()
