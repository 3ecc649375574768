"""How fast a joint training step is, beside transformers' Trainer and sentence-transformers.

    python benchmarks/bench_train.py [--data DIR] [--sizes tiny,small,base] [--threads N] [--quick]

All train encoders of one shape, from random weights, on the same rows, 64 pairs a batch:

    ours  masked tokens and labels, as `desmatch run` trains them on this machine
    a     transformers' Trainer, BertForMaskedLM, padding to the longest pair of a batch, fp32
    b     the same, pairs of like length grouped, bf16
    b32   the same, grouped, fp32
    c     sentence-transformers' CrossEncoderTrainer on the labels alone, fp32

Real tokens are counted, [PAD] is not. Each variant lives in a process of its own, so that settings
of one's memory (our training has glibc keep what is freed) reach no other. The variants take turns;
a table has medians over the rounds, and the median of the rounds' ratios. One thread is timed by
its processor time, several threads or a GPU by the clock on the wall. `of peak` is the share of the
best square matrix product of the same dtype that useful FLOPs reach (see train_work.py). The last
line is the same as JSON. Needs the extra `bench`; `make bench-train` installs it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import NamedTuple

from environment import set_environment
from train_work import Job, Machine, Round, Shape

from desmatch.intake import find_sources
from desmatch.prepare import prepare
from desmatch.runs import revision


class Size(NamedTuple):
    """A shape, and how many steps of it are timed in a round on a CPU."""

    shape: Shape
    steps: int


SIZES = {
    "tiny": Size(Shape(layers=4, width=256), steps=16),
    "small": Size(Shape(layers=6, width=384), steps=8),
    "base": Size(Shape(layers=12, width=768), steps=3),
}

LABELS = {
    "ours": "ours",
    "a": "a    Trainer",
    "b": "b    Trainer, grouped, bf16",
    "b32": "b32  Trainer, grouped",
    "c": "c    CrossEncoder",
}

IMPORTED_ONCE = [
    "desmatch.train.pretrain",
    "sentence_transformers.cross_encoder",
    "transformers.models.bert.modeling_bert",
]
"""What all processes need, imported before they part."""


def run_round(name: str, job: Job, number: int) -> Round:
    """Run in a variant's process: its share of a round."""
    from train_peers import variant

    return variant(name, job).run(number)


def measure_machine(threads: int) -> Machine:
    """Run in a process of its own: the best matrix products."""
    from train_variants import machine

    return machine(threads)


class Measured(NamedTuple):
    """Rounds of each variant, in order, and the machine's best products of all rounds."""

    machine: Machine
    rounds: dict[str, list[Round]]


def measure(job: Job, rounds: int) -> Measured:
    """Let the machine's products and all variants take turns."""
    with ExitStack() as stack:
        context = get_context("forkserver")
        context.set_forkserver_preload(IMPORTED_ONCE)
        beside, *processes = (
            stack.enter_context(ProcessPoolExecutor(1, mp_context=context))
            for _ in range(1 + len(LABELS))
        )
        measured: dict[str, list[Round]] = {name: [] for name in LABELS}
        machines = []
        for number in range(rounds):
            machines.append(beside.submit(measure_machine, job.threads).result())
            for name, process in zip(LABELS, processes, strict=True):
                measured[name].append(process.submit(run_round, name, job, number).result())
    peaks = {dtype: max(each.peaks[dtype] for each in machines) for dtype in machines[0].peaks}
    return Measured(Machine(machines[0].device, peaks), measured)


class Figures(NamedTuple):
    """What a line of the table says.

    Attributes:
        dtype: Of matrix products.
        tokens_per_second: Median over the rounds.
        lowest: Of the rounds.
        highest: Of the rounds.
        share_of_peak: Of that dtype, by useful FLOPs; median over the rounds.
        ours_is_faster: Times; median over the rounds.
    """

    dtype: str
    tokens_per_second: int
    lowest: int
    highest: int
    share_of_peak: float
    ours_is_faster: float


def figures(measured: Measured) -> dict[str, Figures]:
    """Return the figures of each variant."""
    rates = {
        name: [each.tokens / each.seconds for each in rounds]
        for name, rounds in measured.rounds.items()
    }
    lines = {}
    for name, rounds in measured.rounds.items():
        dtype = rounds[0].dtype
        reached = median(each.flops / each.seconds for each in rounds)
        ratios = [ours / theirs for ours, theirs in zip(rates["ours"], rates[name], strict=True)]
        lines[name] = Figures(
            dtype,
            round(median(rates[name])),
            round(min(rates[name])),
            round(max(rates[name])),
            round(reached / measured.machine.peaks[dtype], 4),
            round(median(ratios), 3),
        )
    return lines


def print_table(size: str, shape: Shape, machine: Machine, lines: dict[str, Figures]) -> None:
    """Print one size."""
    peaks = ", ".join(f"{peak / 1e9:.0f} in {dtype}" for dtype, peak in machine.peaks.items())
    print(
        f"\n{size}: {shape.layers} layers of {shape.width}; best matrix product, GFLOP/s: {peaks}"
    )
    print(f"{'variant':<28}{'dtype':>6}{'tokens/s':>10}{'lowest':>9}{'highest':>9}"
          f"{'of peak':>9}{'ours is':>9}")  # fmt: skip
    for name, line in lines.items():
        print(f"{LABELS[name]:<28}{line.dtype:>6}{line.tokens_per_second:>10,.0f}"
              f"{line.lowest:>9,.0f}{line.highest:>9,.0f}{line.share_of_peak:>9.1%}"
              f"{line.ours_is_faster:>8.2f}x", flush=True)  # fmt: skip


def sizes(text: str) -> list[str]:
    """Read the names of sizes from the command line."""
    names = text.split(",")
    unknown = [name for name in names if name not in SIZES]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(SIZES)}")
    return names


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data/sample"), help="contest files")
    parser.add_argument("--sizes", type=sizes, default=[*SIZES], help="of tiny,small,base")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-length", type=int, default=32, help="tokens of a pair, at most")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="timed steps of a round; else by size")
    parser.add_argument("--quick", action="store_true", help="tiny alone, two rounds of few steps")
    options = parser.parse_args()
    if importlib.util.find_spec("sentence_transformers") is None:
        parser.error("sentence-transformers is missing: pip install 'desmatch[bench]'")
    options.num_rows = 16384  # enough for transformers to group 50 batches, as on larger data
    if options.quick:
        options.sizes, options.rounds, options.steps, options.num_rows = ["tiny"], 2, 3, 2048
    return options


def main() -> None:
    """Print the tables and the line of JSON."""
    options = read_options()
    set_environment(options.threads)
    by_size = {}
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        template = Job(
            folder, SIZES["tiny"].shape, options.max_length, options.num_rows, 1, options.threads
        )
        prepare(find_sources(options.data), template.recipe, folder / "prepared")
        for name in options.sizes:
            shape, steps = SIZES[name]
            measured = measure(
                template._replace(shape=shape, steps=options.steps or steps), options.rounds
            )
            lines = figures(measured)
            print_table(name, shape, measured.machine, lines)
            by_size[name] = {
                "peak_gflops": {
                    dtype: round(peak / 1e9, 1) for dtype, peak in measured.machine.peaks.items()
                },
                "variants": {variant: line._asdict() for variant, line in lines.items()},
            }
    libraries = ("torch", "transformers", "sentence-transformers")
    about = {
        "benchmark": "train",
        "data": options.data.name,
        "max_length": options.max_length,
        "rounds": options.rounds,
        "threads": options.threads,
        "device": measured.machine.device,
        "revision": revision(),
        **{library: version(library) for library in libraries},
    }
    print(json.dumps({**about, "sizes": by_size}))


if __name__ == "__main__":
    main()
