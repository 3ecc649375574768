"""How long reading, checking and counting pairs takes, beside `pandas.read_csv` alone.

    python benchmarks/bench_read.py [--quick]

One processor core; the table has the best of some rounds, the last line the same as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from desmatch.data.read import read_pairs, split_ids

if TYPE_CHECKING:
    from collections.abc import Callable

NUM_IDS = 22_000
"""Size of the vocabulary, as in the contest."""


def zipf_texts(num_rows: int, rng: np.random.Generator) -> pa.Array:
    """Return (num_rows,) strings of 6 to 20 ids whose frequencies follow Zipf's law."""
    lengths = rng.integers(6, 21, num_rows)
    weights = 1 / np.arange(1, NUM_IDS + 1)
    ids = rng.choice(NUM_IDS, lengths.sum(), p=weights / weights.sum())
    ends = np.concatenate([[0], lengths.cumsum()]).astype(np.int32)
    texts = pa.ListArray.from_arrays(pa.array(ends), pa.array(ids).cast(pa.string()))
    return pc.binary_join(texts, " ")


def write_pairs(path: Path, num_rows: int, rng: np.random.Generator) -> None:
    """Write contest-like labelled pairs."""
    labels = pa.array(rng.integers(0, 2, num_rows)).cast(pa.string())
    texts = [zipf_texts(num_rows, rng) for _ in range(2)]
    rows = pc.binary_join_element_wise(*texts, labels, "\t")
    path.write_text("\n".join(rows.to_pylist()) + "\n")


def read_with_pandas(path: Path) -> None:
    """Only parse."""
    pd.read_csv(path, sep="\t", header=None)


def read_and_check(path: Path) -> pa.Table:
    """Parse and check every row."""
    return read_pairs([path], labels="required").rows.data.table


def read_and_count(path: Path) -> None:
    """Parse, check and count the ids of both texts."""
    table = read_and_check(path)
    split = split_ids(pa.chunked_array(table["a"].chunks + table["b"].chunks))
    np.bincount(split.codes, minlength=len(split.dictionary))


CANDIDATES: dict[str, Callable[[Path], object]] = {
    "pandas.read_csv alone": read_with_pandas,
    "read and check": read_and_check,
    "read, check and count ids": read_and_count,
}


def best_seconds(path: Path, rounds: int) -> dict[str, float]:
    """Return the shortest time of each candidate in seconds; the rounds are interleaved."""
    best = dict.fromkeys(CANDIDATES, np.inf)
    for _ in range(rounds + 1):  # the first also loads the libraries
        for name, candidate in CANDIDATES.items():
            start = time.perf_counter()
            candidate(path)
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def use_one_core() -> None:
    """Keep Arrow and the scheduler to one core."""
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rows and rounds")
    quick = parser.parse_args().quick
    num_rows, rounds = (50_000, 2) if quick else (400_000, 5)
    use_one_core()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.tsv"
        write_pairs(path, num_rows, np.random.default_rng(0))
        megabytes = path.stat().st_size / 1e6
        seconds = best_seconds(path, rounds)
    print(f"{num_rows} rows, {megabytes:.1f} MB, one core, best of {rounds} rounds")
    print(f"{'':28}{'seconds':>10}{'rows/s':>12}{'x pandas':>10}")
    figures = {}
    for name, second in seconds.items():
        ratio = second / seconds["pandas.read_csv alone"]
        print(f"{name:28}{second:10.3f}{num_rows / second:12.0f}{ratio:10.2f}")
        figures[name] = {
            "seconds": round(second, 4),
            "rows_per_second": round(num_rows / second),
            "ratio_to_pandas": round(ratio, 3),
        }
    about = {"rows": num_rows, "megabytes": round(megabytes, 1), "rounds": rounds}
    versions = {"python": platform.python_version(), "pandas": pd.__version__}
    print(json.dumps({"benchmark": "read", **about, **versions, "figures": figures}))


if __name__ == "__main__":
    main()
