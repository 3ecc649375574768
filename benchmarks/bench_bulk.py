"""How fast a file of pairs is scored, beside two other libraries, and the memory that it takes.

    python benchmarks/bench_bulk.py [--rows N] [--rounds N] [--threads N] [--quick]

One BERT of 6 layers of 384, of random weights, scores the same pairs in both orders, so two
sequences a pair in each of:

    fp32         `desmatch predict RUN --test FILE`, from loading the model to the file of scores
    bf16         the same with --precision bf16
    int8         the same with --precision int8, its graph exported before
    encoder      sentence-transformers' CrossEncoder.predict, fp32, pairs sorted by length
    onnx-int8    ONNX Runtime on transformers' model after `quantize_dynamic`, sorted by length
    pipeline     transformers' pipeline "text-classification", fp32, pairs in the file's order

The libraries get the exported model, already loaded; in fp32 they must agree with our scores. The
variants take turns; the table has medians over the rounds. One thread is timed by its processor
time, several threads or a GPU by the clock on the wall.

Memory is the peak of a process of its own, of a small model: predicted from file to file, and with
all rows read and scored at once. The last line is the same as JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from bulk_peers import MAX_LENGTH, PEER_BATCH, VARIANTS, read_texts
from environment import set_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from desmatch.recipe import ModelConfig

    Scores = NDArray[np.float64]

TOLERANCE = 1e-4
"""Of fp32 scores of one function by two libraries."""
ROUNDED = ("bf16", "int8", "onnx-int8")
"""Variants whose scores are not those of fp32."""
CALIBRATION_PAIRS = 128


class Shape(NamedTuple):
    """Layers and width of a model."""

    layers: int
    width: int


TIMED, WEIGHED = Shape(6, 384), Shape(1, 64)
"""The model that is timed, and a small one whose rows are what fills the memory."""


def model_config(shape: Shape) -> ModelConfig:
    """Return a BERT with a classifier, which transformers has too."""
    from desmatch.recipe import ModelConfig

    return ModelConfig(
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.width // 64 or 1,
        intermediate_size=4 * shape.width,
        head="classifier",
    )


def write_run(folder: Path, test: Path, shape: Shape) -> None:
    """Write what predicting needs of a run: its recipe, a model of random weights, its graph."""
    from bench_serve import export_of

    from desmatch.data.counts import count_ids
    from desmatch.data.read import read_tables
    from desmatch.data.vocabulary import fit_vocabulary
    from desmatch.intake import Sources
    from desmatch.model.checkpoints import build_model
    from desmatch.recipe import DataConfig, Recipe
    from desmatch.runs import seed_everything
    from desmatch.stages import Run, save_run

    config = DataConfig(max_length=MAX_LENGTH, min_count=1)
    run = Run(folder, Recipe(data=config, model=model_config(shape)), Sources((test,), test, ()))
    save_run(run)
    texts = next(read_tables(test, labels="optional"))["a"]
    vocabulary = fit_vocabulary(count_ids(texts), config)
    seed_everything(0)
    model = build_model(run.recipe.model, vocab_size=vocabulary.size, max_length=MAX_LENGTH)
    model.save_pretrained(run.last_model)
    vocabulary.save(run.last_model)
    export_of(
        model.eval(),
        vocabulary,
        folder / "serving-int8",
        "int8",
        calibration=read_texts(test)[:CALIBRATION_PAIRS],
        predictions=run.digest("predictions"),
    )


def export(folder: Path, out: Path) -> None:
    """Write the run's model as transformers has it, with its tokenizer."""
    from desmatch.data.vocabulary import Vocabulary
    from desmatch.model.checkpoints import load_model
    from desmatch.model.convert import to_hugging_face
    from desmatch.stages import load_run

    last_model = load_run(folder).last_model
    to_hugging_face(load_model(last_model)).save_pretrained(out)
    Vocabulary.load(last_model).save(out)


NEEDS = {"encoder": "sentence_transformers"}
"""What a variant cannot do without."""


class Line(NamedTuple):
    """What the table says of a variant.

    Attributes:
        pairs_per_second: Median over the rounds.
        fp32_is_faster: Our fp32 beside it: times; median over the rounds.
        times_encoder: How many times as fast as CrossEncoder; median over the rounds.
        largest_gap: Between its scores and our fp32 ones.
    """

    pairs_per_second: float
    fp32_is_faster: float
    times_encoder: float | None
    largest_gap: float


def measure_speed(folder: Path, options: argparse.Namespace) -> dict[str, Line | str]:
    """Return each variant's line, or why it was left out."""
    import torch

    is_alone = options.threads == 1 and not torch.cuda.is_available()
    clock = time.process_time if is_alone else time.perf_counter
    skipped = {
        name: f"left out: {needed.replace('_', '-')} is not installed"
        for name, needed in NEEDS.items()
        if importlib.util.find_spec(needed) is None
    }
    variants = {name: make(folder) for name, make in VARIANTS.items() if name not in skipped}
    warm, test = folder / "warm.tsv", folder / "test.tsv"
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    scores: dict[str, Scores] = {}
    for variant in variants.values():
        variant.score(warm)
    for _ in range(options.rounds):
        for name, variant in variants.items():
            start = clock()
            scores[name] = variant.score(test)
            seconds[name].append(clock() - start)
    lines = {name: _line(seconds, scores, name) for name in variants}
    return {name: lines.get(name, skipped.get(name, "")) for name in VARIANTS}


def _line(seconds: dict[str, list[float]], scores: dict[str, Scores], name: str) -> Line:
    gap = float(np.abs(scores[name] - scores["fp32"]).max())
    if name not in ROUNDED and gap > TOLERANCE:
        raise SystemExit(f"{name}: scores differ from ours by {gap:.2g}")
    rate = len(scores[name]) / median(seconds[name])
    is_beside = "encoder" in seconds
    times_encoder = _ratio(seconds["encoder"], seconds[name]) if is_beside else None
    return Line(round(rate, 1), _ratio(seconds[name], seconds["fp32"]), times_encoder, gap)


def _ratio(seconds: list[float], others: list[float]) -> float:
    """Return how many times as long as others, the median over the rounds."""
    pairs = zip(seconds, others, strict=True)
    return round(median(ours / theirs for ours, theirs in pairs), 3)


def predict_in_chunks(folder: Path, test: Path, *, in_int8: bool = False) -> None:
    """Predict from file to file."""
    from desmatch.bulk import Manner, predict_file
    from desmatch.stages import load_run

    manner = Manner(precision="int8" if in_int8 else "fp32")
    predict_file(load_run(folder / "small"), test, folder / "scores.tsv", manner)


def predict_at_once(folder: Path, test: Path) -> None:
    """Read and score all rows at once."""
    from desmatch.data.read import column, read_pairs
    from desmatch.predict import predict_texts
    from desmatch.stages import load_run
    from desmatch.submit import write_scores

    rows = read_pairs([test], labels="optional").rows
    models = load_run(folder / "small").last_models
    scores = predict_texts(models, column(rows, "a"), column(rows, "b")).scores
    write_scores(folder / "scores.tsv", [scores])


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "in chunks": predict_in_chunks,
    "chunks, int8": partial(predict_in_chunks, in_int8=True),
    "at once": predict_at_once,
}
"""The ways to predict."""


def peak_megabytes(way: str, folder: Path, test: Path) -> float:
    """Run in a process of its own: predict one way and return the peak of its memory."""
    WAYS[way](folder, test)
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


def measure_memory(folder: Path, numbers: Sequence[int]) -> dict[str, dict[int, float]]:
    """Return the peak of each way in MiB by the number of rows."""
    peaks: dict[str, dict[int, float]] = {name: {} for name in WAYS}
    for num_rows in numbers:
        test = folder / f"rows-{num_rows}.tsv"
        for name in WAYS:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                peak = process.submit(peak_megabytes, name, folder, test).result()
            peaks[name][num_rows] = round(peak, 1)
    return peaks


def write_data(folder: Path, num_rows: int, numbers: Sequence[int]) -> None:
    """Write the files of pairs, contest-like, and the two runs."""
    from bench_read import write_pairs

    rng = np.random.default_rng(0)
    write_pairs(folder / "test.tsv", num_rows, rng)
    write_pairs(folder / "warm.tsv", 2 * PEER_BATCH, rng)
    write_run(folder / "run", folder / "test.tsv", TIMED)
    export(folder / "run", folder / "plain")
    for number in numbers:
        write_pairs(folder / f"rows-{number}.tsv", number, rng)
    write_run(folder / "small", folder / f"rows-{numbers[0]}.tsv", WEIGHED)


def print_speed(lines: dict[str, Line | str], num_rows: int) -> None:
    """Print the table of speeds."""
    print(f"{num_rows} pairs, both orders, {TIMED.layers} layers of {TIMED.width}")
    print(f"{'':12}{'pairs/s':>10}{'fp32 is':>10}{'x encoder':>11}{'largest gap':>14}")
    for name, line in lines.items():
        if isinstance(line, str):
            print(f"{name:12}{line}")
        else:
            beside = "" if line.times_encoder is None else f"{line.times_encoder:.2f}"
            print(f"{name:12}{line.pairs_per_second:10.1f}{line.fp32_is_faster:9.2f}x"
                  f"{beside:>11}{line.largest_gap:14.1e}")  # fmt: skip


def print_memory(peaks: dict[str, dict[int, float]]) -> None:
    """Print the table of peaks."""
    numbers = [*next(iter(peaks.values()))]
    print(f"\npeak memory in MiB, {WEIGHED.layers} layer of {WEIGHED.width}")
    print(f"{'rows':12}" + "".join(f"{number:>12,}" for number in numbers))
    for name, by_rows in peaks.items():
        print(f"{name:12}" + "".join(f"{by_rows[number]:12.1f}" for number in numbers))


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=4096, help="timed pairs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="few pairs, two rounds, 10^3 and 10^4")
    options = parser.parse_args()
    options.memory_rows = [10**4, 10**5]
    if options.quick:
        options.rows, options.rounds, options.memory_rows = 256, 2, [10**3, 10**4]
    return options


def main() -> None:
    """Print the tables and the line of JSON."""
    options = read_options()
    set_environment(options.threads)
    from desmatch.runs import processor_name, revision

    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        write_data(folder, options.rows, options.memory_rows)
        lines = measure_speed(folder, options)
        print_speed(lines, options.rows)
        peaks = measure_memory(folder, options.memory_rows)
        print_memory(peaks)
    about = {
        "benchmark": "bulk",
        "rows": options.rows,
        "rounds": options.rounds,
        "threads": options.threads,
        "processor": processor_name(),
        "revision": revision(),
        **{library: version(library) for library in ("torch", "transformers")},
    }
    speed = {
        name: line if isinstance(line, str) else line._asdict() for name, line in lines.items()
    }
    print(json.dumps({**about, "speed": speed, "peak_mebibytes": peaks}))


if __name__ == "__main__":
    main()
