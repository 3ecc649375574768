"""Rows a second and memory of `desmatch anonymize` and `desmatch audit`, and what an attack reads.

    python benchmarks/bench_anonymize.py [--rows N] [--quick]

The texts are of a toy language of some 1,500 words, every other one written as two Chinese
characters, so that both rules of `--tokens auto` are at work. Each line is a process of its own:
its seconds of the processor, which other work on the machine does not stretch as it does those on
the clock, and the most memory it held. The attacks are measured on the same language, against
another sample of it. The last line has the same figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from desmatch.data.sample import LanguageConfig, Speaker, build_grammar

if TYPE_CHECKING:
    from collections.abc import Sequence

LANGUAGE = LanguageConfig(
    num_frames=12, num_actions=8, num_slots=10, num_values=30, num_synonyms=3, num_fillers=60
)
FIRST_HAN = 0x4E00
MEASURED = """
import sys, time
from pathlib import Path
from desmatch.cli import main
status = main(sys.argv[1:])
lines = Path("/proc/self/status").read_text().splitlines()
print(time.process_time(), next(line.split()[1] for line in lines if line.startswith("VmHWM")))
sys.exit(status)
"""
"""What a process runs: a command, then its seconds of the processor and its peak in KiB."""


def word_text(word: int) -> str:
    """Return how a word of the toy language is written."""
    if word % 2:
        return f"wort{word}"
    return chr(FIRST_HAN + word) + chr(FIRST_HAN + 2000 + word // 4)


def pairs(num_rows: int, seed: int) -> pa.Table:
    """Return labelled pairs of plain texts; all seeds speak one language."""
    grammar = build_grammar(LANGUAGE, np.random.default_rng(0))
    speaker = Speaker(grammar=grammar, config=LANGUAGE, rng=np.random.default_rng(seed))
    drawn = list(islice(speaker.pairs(), min(num_rows, 50_000)))
    times = -(-num_rows // len(drawn))
    columns = {
        "a": [" ".join(map(word_text, pair.a)) for pair in drawn],
        "b": [" ".join(map(word_text, pair.b)) for pair in drawn],
        "label": [pair.label for pair in drawn],
    }
    return pa.concat_tables([pa.table(columns)] * times).slice(0, num_rows)


def write_all(folder: Path, table: pa.Table) -> dict[str, Path]:
    """Write a table in every format that is read."""
    paths = {name: folder / f"rows.{name}" for name in ("tsv", "csv", "jsonl", "parquet")}
    rows = table.to_pylist()
    text = "".join(f"{row['a']}\t{row['b']}\t{row['label']}\n" for row in rows)
    paths["tsv"].write_text(text, encoding="utf-8")
    pyarrow.csv.write_csv(table, paths["csv"])
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    paths["jsonl"].write_text("\n".join(lines), encoding="utf-8")
    pq.write_table(table, paths["parquet"])
    return paths


def run(words: Sequence[object]) -> dict[str, float]:
    """Run desmatch in a process of its own; return its seconds and the most memory it held."""
    started = time.perf_counter()
    command = [sys.executable, "-c", MEASURED, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    cpu_seconds, peak = done.stdout.splitlines()[-1].split()
    return {
        "cpu_seconds": float(cpu_seconds),
        "seconds": time.perf_counter() - started,
        "peak_mib": int(peak) / 1024,
    }


def measure(folder: Path, num_rows: int) -> list[dict[str, Any]]:
    """Number the same rows in every format and by every option, and a tenth of them."""
    inputs = write_all(folder, pairs(num_rows, seed=1))
    few, num_few = folder / "few.tsv", num_rows // 10
    with inputs["tsv"].open() as source, few.open("w") as stream:
        stream.writelines(islice(source, num_few))
    cases: list[tuple[str, Path, int, list[str]]] = [
        ("tsv, a tenth of the rows", few, num_few, []),
        *((name, path, num_rows, []) for name, path in inputs.items()),
        ("tsv, --shuffle", inputs["tsv"], num_rows, ["--shuffle"]),
        ("tsv, --min-count 5", inputs["tsv"], num_rows, ["--min-count", "5"]),
    ]
    lines: list[dict[str, Any]] = []
    for number, (name, path, rows, options) in enumerate(cases):
        out, key = folder / f"out-{number}", folder / f"key-{number}.json"
        used = run(["anonymize", path, "--out", out, "--key", key, *options])
        lines.append({"case": name, "rows": rows, **used})
    return lines


def attack(folder: Path, num_rows: int) -> dict[str, Any]:
    """Audit numbered rows with all an attacker may have; return its figures and its seconds."""
    rows = write_all(folder, pairs(num_rows, seed=2))["tsv"]
    corpus = folder / "corpus.tsv"
    rows.rename(corpus)
    rows = write_all(folder, pairs(num_rows, seed=1))["tsv"]
    run(["anonymize", rows, "--out", folder / "audited", "--key", folder / "audited.json"])
    options = ["--key", folder / "audited.json", "--public-pairs", corpus]
    page = folder / "audit.html"
    used = run(["audit", folder / "audited", *options, "--out", page])
    found = json.loads(page.with_suffix(".json").read_text())
    return {
        "rows": num_rows,
        "tokens": found["data"]["distinct_ids"],
        "by_rank": found["attack"]["occurrences"],
        "top": found["neighbours"]["top"],
        "by_rank_of_top": found["neighbours"]["by_rank"]["occurrences"],
        "by_neighbours_of_top": found["neighbours"]["by_neighbours"]["occurrences"],
        **used,
    }


def main() -> None:
    """Print the tables and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--quick", action="store_true", help="20,000 rows, and an audit of 2,000")
    options = parser.parse_args()
    num_rows = 20_000 if options.quick else options.rows
    with tempfile.TemporaryDirectory() as name:
        lines = measure(Path(name), num_rows)
    print(f"{'input':<26}{'rows':>10}{'CPU s':>9}{'rows / CPU s':>14}{'peak MiB':>10}")
    for line in lines:
        print(f"{line['case']:<26}{line['rows']:>10}{line['cpu_seconds']:>9.1f}"
              f"{line['rows'] / line['cpu_seconds']:>14.0f}{line['peak_mib']:>10.0f}")  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        found = attack(Path(name), 2_000 if options.quick else 20_000)
    print(f"\naudit of {found['rows']} rows, {found['tokens']} tokens: "
          f"{found['cpu_seconds']:.1f} CPU s, peak {found['peak_mib']:.0f} MiB")  # fmt: skip
    print(f"placed right: {found['by_rank']:.2%} of the occurrences by rank; of the {found['top']} "
          f"most frequent tokens' {found['by_rank_of_top']:.2%} by rank, "
          f"{found['by_neighbours_of_top']:.2%} by neighbours")  # fmt: skip
    print(json.dumps({"anonymize": lines, "audit": found}))


if __name__ == "__main__":
    main()
