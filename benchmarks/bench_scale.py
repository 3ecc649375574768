"""What a row costs in time and memory from 10^5 to 10^8 rows, step by step.

    python benchmarks/bench_scale.py [--quick] [--rows N ...] [--steps STEP ...] [--figure SVG]

Pairs of 8 to 16 ids, by Zipf's law of V distinct ones, are generated and written as text:

    generate     making the file, apart from all else
    check        every row is read and checked: what `desmatch predict` does before it scores
    count        the same, and ids, lengths and distinct texts: `desmatch inspect --unlabeled FILE`
    prepare      the same, and the rows encoded on the disk: `desmatch prepare`, 2,000 rows labelled
    batches      500 batches of 64 rows for pretraining, drawn from all of them, masked and packed
    predict      `desmatch predict RUN --test FILE` with a model of one layer of 32

Each step is a process of its own. Seconds are those of the processor, as other work may share the
machine; `wall` is the clock. `peak` is the most memory that was resident, `own` the part of it that
is not a mapped file, which the system may drop. Steps stop at the rows in `LARGEST`. The last line
is the same as JSON.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes

SHORTEST, LONGEST = 4, 8
"""Ids of a text."""

CHUNK_ROWS = 1 << 17
"""Rows that are generated at a time."""

NUM_BATCHES = 500

NUM_LABELLED = 2000


class Zipf:
    """Texts of ids whose frequencies follow Zipf's law.

    Args:
        num_ids: V.
    """

    def __init__(self, num_ids: int) -> None:
        weights = 1 / np.arange(1, num_ids + 1)
        quantiles = np.linspace(0, 1, max(1 << 20, 4 * num_ids), endpoint=False)
        share = np.cumsum(weights / weights.sum())
        self.drawn = np.searchsorted(share, quantiles, side="right").astype(np.int32)
        names = np.char.add(np.arange(num_ids).astype(f"S{len(str(num_ids))}"), b" ")
        self.names = names.view(np.uint8).reshape(num_ids, -1)  # (V, bytes), 0 after the end
        self.widths = (self.names > 0).sum(axis=1)

    def lines(self, num_rows: int, rng: np.random.Generator, ends: Sequence[bytes]) -> bytes:
        """Return rows of two texts; row i ends with `ends[i % len(ends)]`."""
        lengths = rng.integers(SHORTEST, LONGEST + 1, 2 * num_rows)
        ids = self.drawn[rng.integers(0, len(self.drawn), int(lengths.sum()))]
        names = self.names[ids]
        last = np.cumsum(lengths) - 1
        mark = np.full(2 * num_rows, ord("\t"), np.uint8)
        mark[1::2] = ord("\n")
        names[last, self.widths[ids[last]] - 1] = mark
        text = names[names > 0].tobytes()
        if ends == (b"\n",):
            return text
        rows = text.split(b"\n")[:-1]
        return b"".join(row + ends[k % len(ends)] for k, row in enumerate(rows))


def write_rows(path: Path, num_rows: int, num_ids: int) -> None:
    """Write rows without labels."""
    zipf = Zipf(num_ids)
    with path.open("wb") as stream:
        for start in range(0, num_rows, CHUNK_ROWS):
            rng = np.random.default_rng([1, start])
            stream.write(zipf.lines(min(CHUNK_ROWS, num_rows - start), rng, (b"\n",)))


def write_run_files(folder: Path, num_ids: int) -> None:
    """Write few labelled rows and a small test beside which there may be many rows."""
    zipf, rng = Zipf(num_ids), np.random.default_rng(0)
    (folder / "train.tsv").write_bytes(zipf.lines(NUM_LABELLED, rng, (b"\t0\n", b"\t1\n")))
    (folder / "test.tsv").write_bytes(zipf.lines(NUM_LABELLED, rng, (b"\n",)))


class Job(NamedTuple):
    """One size: a scratch folder with the files, and how many rows of how many ids."""

    folder: Path
    num_rows: int
    num_ids: int

    @property
    def file(self) -> Path:
        """The rows."""
        return self.folder / f"rows-{self.num_rows}.tsv"

    @property
    def prepared(self) -> Path:
        """What `prepare` makes of them."""
        return self.folder / f"prepared-{self.num_rows}"


def generate(job: Job) -> int:
    """Make the file."""
    write_rows(job.file, job.num_rows, job.num_ids)
    return job.num_rows


def check(job: Job) -> int:
    """Read and check every row."""
    from desmatch.data.read import count_pairs

    return count_pairs(job.file, labels="absent")


def count(job: Job) -> int:
    """Check every row, and count ids and texts."""
    from desmatch.recipe import Recipe
    from desmatch.survey import count_files

    figures, _ = count_files([job.file], Recipe())
    return int(figures["data"][0]["rows"])


def prepare_rows(job: Job) -> int:
    """Count every row and encode it."""
    from desmatch.intake import Sources
    from desmatch.prepare import prepare
    from desmatch.recipe import Recipe

    sources = Sources((job.folder / "train.tsv",), job.folder / "test.tsv", (job.file,))
    job.prepared.mkdir()
    prepare(sources, Recipe(), job.prepared)
    return job.num_rows


def draw_batches(job: Job) -> int:
    """Draw, mask and pack batches of all rows."""
    from desmatch.prepare import Prepared
    from desmatch.recipe import Recipe
    from desmatch.train.pretrain import joint_labels, joint_rows, stage_batches

    prepared, recipe = Prepared.load(job.prepared), Recipe()
    rows = joint_rows(prepared, joint_labels(prepared, 0))
    batches = stage_batches(prepared, recipe, recipe.pretrain, rows, stage="pretrained")
    steps = min(NUM_BATCHES, len(batches))
    for step in range(steps):
        batches[step]
    return steps * recipe.pretrain.batch_size


def predict(job: Job) -> int:
    """Score every row."""
    from bench_bulk import Shape, write_run

    from desmatch.bulk import predict_file
    from desmatch.stages import load_run

    run, out = job.folder / "run", job.folder / "scores.tsv"
    if not run.exists():
        write_run(run, job.folder / "test.tsv", Shape(layers=1, width=32))
    num_rows = predict_file(load_run(run), job.file, out)
    out.unlink()
    return num_rows


MODULES = {
    "generate": (),
    "check": ("desmatch.data.read",),
    "count": ("desmatch.survey",),
    "prepare": ("desmatch.prepare",),
    "batches": ("desmatch.train.pretrain",),
    "predict": ("bench_bulk", "desmatch.bulk"),
}
"""What a step imports, off the clock."""

STEPS: dict[str, Callable[[Job], int]] = {
    "generate": generate,
    "check": check,
    "count": count,
    "prepare": prepare_rows,
    "batches": draw_batches,
    "predict": predict,
}
"""What is measured; each returns the rows it went through."""

LARGEST = {"check": 10**7, "prepare": 10**7, "batches": 10**7, "predict": 10**6}
"""Most rows of the steps that need not be shown further."""


class Cost(NamedTuple):
    """What a step took.

    Attributes:
        rows: Gone through.
        seconds: Of the processor.
        wall: Seconds on the clock.
        microseconds_a_row: Of the processor.
        peak: MiB resident at most, libraries included.
        own: MiB of it at most that are no mapped files.
    """

    rows: int
    seconds: float
    wall: float
    microseconds_a_row: float
    peak: float
    own: float


class Watch:
    """Looks at the memory of its own process every few milliseconds."""

    def __init__(self) -> None:
        self.own = 0.0
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ends.wait(0.02):
            self.own = max(self.own, _mebibytes("RssAnon"))


def _mebibytes(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def measure(step: str, job: Job) -> Cost:
    """Do one step in this process and return what it took."""
    for module in MODULES[step]:
        importlib.import_module(module)
    with Watch() as watch:
        wall, seconds = time.perf_counter(), time.process_time()
        rows = STEPS[step](job)
        seconds, wall = time.process_time() - seconds, time.perf_counter() - wall
    return Cost(
        rows,
        round(seconds, 2),
        round(wall, 2),
        round(1e6 * seconds / rows, 3),
        round(_mebibytes("VmHWM"), 1),
        round(watch.own, 1),
    )


Costs = dict[str, dict[int, Cost]]


def measure_all(folder: Path, sizes: Sequence[int], num_ids: int, steps: Sequence[str]) -> Costs:
    """Return the cost of every step by the number of rows; files are dropped when done with."""
    write_run_files(folder, num_ids)
    costs: Costs = {step: {} for step in STEPS}
    print(f"{'rows':>11} {'step':9}{'seconds':>10}{'wall':>10}{'us a row':>10}{'peak MiB':>10}"
          f"{'own MiB':>10}")  # fmt: skip
    for num_rows in sizes:
        job = Job(folder, num_rows, num_ids)
        for step in steps:
            if num_rows > LARGEST.get(step, num_rows):
                continue
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                cost = process.submit(measure, step, job).result()
            costs[step][num_rows] = cost
            print(f"{num_rows:11,} {step:9}{cost.seconds:10.2f}{cost.wall:10.2f}"
                  f"{cost.microseconds_a_row:10.3f}{cost.peak:10.1f}{cost.own:10.1f}",
                  flush=True)  # fmt: skip
        job.file.unlink()
    return costs


def read_costs(path: Path) -> Costs:
    """Return the costs of an earlier run from what it printed."""
    figures = json.loads(path.read_text().splitlines()[-1])["figures"]
    return {
        step: {int(rows): Cost(**cost) for rows, cost in by_rows.items()}
        for step, by_rows in figures.items()
    }


def draw(costs: Costs, path: Path) -> None:
    """Draw the cost of a row and the memory against the number of rows."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for step, by_rows in costs.items():
        if step == "generate" or not by_rows:
            continue
        sizes = sorted(by_rows)
        microseconds = [by_rows[rows].microseconds_a_row for rows in sizes]
        left.plot(sizes, microseconds, marker="o", label=step)
        right.plot(sizes, [by_rows[rows].own for rows in sizes], marker="o", label=step)
    _finish(left, "microseconds of the processor a row", (0, left.get_ylim()[1]))
    _finish(right, "memory, MiB, mapped files aside", (0, right.get_ylim()[1]))
    right.axhline(2048, color="grey", linestyle=":")
    with mpl.rc_context({"svg.hashsalt": "scale", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def _finish(axes: Axes, title: str, limits: tuple[float, float]) -> None:
    axes.set_xscale("log")
    axes.set_xlabel("rows")
    axes.set_title(title, fontsize=10)
    axes.set_ylim(*limits)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[10**k for k in range(5, 9)])
    parser.add_argument("--steps", nargs="+", choices=[*STEPS][1:], default=[*STEPS][1:])
    parser.add_argument("--ids", type=int, default=22_000, help="distinct ids, V (22000)")
    parser.add_argument("--scratch", type=Path, help="folder for the files, 5 GB for 10^8 rows")
    parser.add_argument("--figure", type=Path, metavar="SVG", help="draw the costs")
    parser.add_argument("--beside", type=Path, nargs="+", default=[], metavar="FILE",
                        help="what earlier runs printed, to be drawn along")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="10^4 and 10^5 rows")
    options = parser.parse_args()
    if options.quick:
        options.rows = [10**4, 10**5]
    return options


def main() -> None:
    """Print the table and the line of JSON."""
    options = read_options()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        steps = ["generate", *options.steps]
        costs = measure_all(Path(folder), options.rows, options.ids, steps)
    from desmatch.runs import processor_name, revision

    if options.figure:
        for earlier in map(read_costs, options.beside):
            for step, by_rows in earlier.items():
                costs[step] |= by_rows
        draw(costs, options.figure)
    figures: dict[str, Any] = {
        step: {str(rows): cost._asdict() for rows, cost in by_rows.items()}
        for step, by_rows in costs.items()
    }
    about = {"ids": options.ids, "processor": processor_name(), "revision": revision()}
    print(json.dumps({"benchmark": "scale", **about, "figures": figures}))


if __name__ == "__main__":
    main()
