"""How long an answer takes over HTTP, one pair at a time, on a new connection each.

    make bench-serve
    python benchmarks/bench_serve.py [--pairs N] [--layers 12 --width 768] [--quick]
    python benchmarks/bench_serve.py --loss RUN [--loss RUN ...]

The rule of GAIIC 2021 track 3, round 2: 18 ms a pair. A model of BERT-base's size with random
weights, exported in fp32 and in int8, is served by `desmatch serve --orders one` in a process of
its own, and asked by the client of `desmatch referee`, in this one: pairs of the contest's length,
so both share the machine. The server has the container's environment (huge pages). Beside them: the
same server without a model's work (a model of one narrow layer), to show what HTTP costs.

--loss: what int8 loses on a trained run's held-out rows: AUC less that of fp32, each row by the
model that did without its fold. The last line has the figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from desmatch.data.vocabulary import fit_vocabulary
from desmatch.deploy import export_onnx
from desmatch.model.checkpoints import build_model
from desmatch.model.graph import write_graphs
from desmatch.recipe import DataConfig, ModelConfig
from desmatch.runs import seed_everything, write_json
from desmatch.serve.quantize import quantize
from desmatch.serve.referee import Rules, referee
from desmatch.serve.session import MANIFEST, SavedMember, padded_rows
from desmatch.stages import load_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from desmatch.data.vocabulary import Vocabulary
    from desmatch.model.heads import MatchForPairs
    from desmatch.serve.quantize import Precision

NUM_IDS = 9000
"""Distinct ids of the contest's test."""
MEAN_LENGTH = 6.2
"""Of its texts; the median is 6, the 99th percentile 13."""
LIMIT_MS = 18.0
CONTAINER = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Of the Dockerfile's environment, what makes answers faster."""
WARM_UP = 50
CALIBRATION_PAIRS = 64


def draw_pairs(num_pairs: int) -> list[tuple[str, str]]:
    """Return pairs whose texts are as long as the contest's, ids drawn by Zipf's law."""
    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, NUM_IDS + 1)
    lengths = 1 + rng.poisson(MEAN_LENGTH - 1, 2 * num_pairs)
    ids = rng.choice(NUM_IDS, int(lengths.sum()), p=weights / weights.sum())
    texts = [" ".join(map(str, part)) for part in np.split(ids, np.cumsum(lengths)[:-1])]
    return list(zip(texts[::2], texts[1::2], strict=True))


def random_model(layers: int, width: int) -> tuple[MatchForPairs, Vocabulary]:
    """Return a model with random weights, and a vocabulary of all ids."""
    seed_everything(0)
    vocabulary = fit_vocabulary(
        {str(k): NUM_IDS - k for k in range(NUM_IDS)}, DataConfig(max_length=64, min_count=1)
    )
    config = ModelConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 64, 1),
        intermediate_size=4 * width,
        position="rotary",
    )
    return build_model(config, vocab_size=vocabulary.size, max_length=64), vocabulary


def export_of(
    model: MatchForPairs,
    vocabulary: Vocabulary,
    folder: Path,
    precision: Precision,
    *,
    calibration: list[tuple[str, str]] | None = None,
    predictions: str = "",
) -> None:
    """Write an export of one model; int8 has its scales from pairs given or drawn."""
    (folder / "model").mkdir(parents=True)
    write_graphs([model], [folder / "plain.onnx"])
    a, b = map(list, zip(*(calibration or draw_pairs(CALIBRATION_PAIRS)), strict=True))
    pairs = vocabulary.encode(a, b)
    inputs = (padded_rows(pairs, np.array([at]), np.array([False])) for at in range(len(a)))
    quantize(folder / "plain.onnx", folder / "model" / "0.onnx", precision=precision,
             calibration=inputs)  # fmt: skip
    (folder / "plain.onnx").unlink()
    vocabulary.save(folder / "model")
    saved = SavedMember(graphs=("0.onnx",), num_models=1)
    members = {"model": saved.to_json()}
    manifest = {"members": members, "rule": None, "predictions": predictions}
    write_json(folder / MANIFEST, manifest)


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[str, int]]:
    """Serve an export in a process of its own; give its URL and the process's number."""
    words = ["serve", str(folder), "--port", "0", *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "desmatch", *words],
        env={**os.environ, **CONTAINER},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found is not None, "the server did not start"
        yield found[0], process.pid
    finally:
        process.terminate()
        process.wait()


def time_answers(folder: Path, pairs: list[tuple[str, str]], threads: int) -> dict[str, Any]:
    """Return the referee's figures of a served model."""
    rules = Rules(limit_ms=LIMIT_MS)
    options = ("--contract", "gaiic", "--orders", "one", "--threads", str(threads))
    with serving(folder, *options) as (url, _):
        referee(url, pairs[:WARM_UP], rules)
        figures = referee(url, pairs, rules).figures
    assert not figures.failures, figures.failures
    names = ("p50_ms", "p90_ms", "p99_ms", "max_ms", "share_over_limit", "pairs_per_second")
    return {name: getattr(figures, name) for name in names}


def loss_of_int8(run_folder: Path) -> dict[str, Any]:
    """Return what int8 loses on a run's held-out rows."""
    with tempfile.TemporaryDirectory() as scratch:
        manifest = export_onnx(load_run(run_folder), Path(scratch) / "out", precision="int8")
    return {"run": run_folder.name, **manifest["parity"]}


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=3000, help="asked one by one")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of the server")
    parser.add_argument("--loss", type=Path, action="append", default=[], metavar="RUN")
    parser.add_argument("--quick", action="store_true", help="a minute: a small model, few pairs")
    options = parser.parse_args()
    if options.quick:
        options.pairs, options.layers, options.width, options.threads = 100, 2, 64, [1]
    pairs = draw_pairs(options.pairs)
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        if not options.loss or options.quick:
            lines = time_all(Path(scratch), pairs, options)
    losses = [loss_of_int8(run) for run in options.loss]
    for loss in losses:
        print(json.dumps(loss))
    print(json.dumps({"serve": lines, "loss": losses}))


def time_all(
    scratch: Path, pairs: list[tuple[str, str]], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Time every precision and number of threads, a line of the table each."""
    shapes: list[tuple[Precision, int, int]] = [
        ("fp32", 1, 64), ("fp32", options.layers, options.width),
        ("int8", options.layers, options.width),
    ]  # fmt: skip
    print(f"{len(pairs)} pairs, one order, one by one; limit {LIMIT_MS:g} ms")
    print(f"{'model':>16} {'threads':>8} {'p50 ms':>8} {'p90 ms':>8} {'p99 ms':>8} {'max ms':>8} "
          f"{'over limit':>10} {'pairs/s':>8}")  # fmt: skip
    lines = []
    for precision, layers, width in shapes:
        folder = scratch / f"{precision}-{layers}-{width}"
        export_of(*random_model(layers, width), folder, precision)
        for threads in options.threads:
            found = time_answers(folder, pairs, threads)
            line = {"precision": precision, "layers": layers, "width": width, "threads": threads}
            lines.append({**line, **found})
            print(f"{precision + f' {layers}x{width}':>16} {threads:>8} {found['p50_ms']:>8.2f} "
                  f"{found['p90_ms']:>8.2f} {found['p99_ms']:>8.2f} {found['max_ms']:>8.2f} "
                  f"{found['share_over_limit']:>10.2%} {found['pairs_per_second']:>8.1f}",
                  flush=True)  # fmt: skip
    return lines


if __name__ == "__main__":
    main()
