"""Many clients at once: is any answer wrong, does memory grow, how long does one wait?

    python benchmarks/load_serve.py [--clients 64] [--seconds 120] [--quick]

A model with random weights is served by `desmatch serve` in a process of its own. Every client asks
for one pair at a time on a new connection and compares the answer with the probability that torch
gave beforehand. Memory is the server's resident size, at the end of each tenth of the time. The
last line has the figures as JSON.
"""

from __future__ import annotations

import argparse
import http.client
import json
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from bench_serve import draw_pairs, export_of, random_model, serving

from desmatch.model.scoring import score_pairs

TOLERANCE = 1e-4
TENTHS = 10


@dataclass
class Told:
    """What the clients have seen; appended to by all of them."""

    seconds: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def ask(url: str, pair: tuple[str, str]) -> float:
    """Return the score of a pair, asked for on a new connection."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
    try:
        body = json.dumps({"pairs": [{"a": pair[0], "b": pair[1]}]})
        connection.request("POST", "/v1/match", body)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise ValueError(f"status {answer.status}")
        return float(json.loads(content)["results"][0]["score"])
    finally:
        connection.close()


def client(
    url: str, pairs: list[tuple[str, str]], expected: list[float], until: float, told: Told
) -> None:
    """Ask for one pair after the other until the time is over."""
    for row in np.random.default_rng(threading.get_ident()).integers(0, len(pairs), 1 << 20):
        if time.monotonic() > until:
            return
        started = time.perf_counter()
        try:
            score = ask(url, pairs[row])
        except (OSError, ValueError, http.client.HTTPException) as error:
            told.failures.append(repr(error))
            continue
        told.seconds.append(time.perf_counter() - started)
        told.errors.append(abs(score - expected[row]))


def resident_mib(pid: int) -> float:
    """Return a process's resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no such process: {pid}")


def load(num_clients: int, seconds: float, layers: int, width: int) -> dict[str, Any]:
    """Return the figures of one load."""
    pairs = draw_pairs(500)
    model, vocabulary = random_model(layers, width)
    encoded = vocabulary.encode(*map(list, zip(*pairs, strict=True)))
    expected = score_pairs(model, encoded).scores.tolist()
    told, memory = Told(), []
    with tempfile.TemporaryDirectory() as scratch:
        export_of(model, vocabulary, Path(scratch) / "export", "fp32")
        with serving(Path(scratch) / "export", "--threads", "1") as (url, pid):
            until = time.monotonic() + seconds
            threads = [
                threading.Thread(target=client, args=(url, pairs, expected, until, told))
                for _ in range(num_clients)
            ]
            for thread in threads:
                thread.start()
            for _ in range(TENTHS):
                time.sleep(seconds / TENTHS)
                memory.append(round(resident_mib(pid), 1))
            for thread in threads:
                thread.join()
    waits = np.array(told.seconds) * 1e3
    return {
        "clients": num_clients,
        "seconds": seconds,
        "answers": len(told.errors),
        "wrong": int((np.array(told.errors) > TOLERANCE).sum()),
        "largest_error": max(told.errors),
        "failures": len(told.failures),
        "answers_per_second": round(len(told.errors) / seconds, 1),
        "p50_ms": round(float(np.percentile(waits, 50)), 1),
        "p99_ms": round(float(np.percentile(waits, 99)), 1),
        "memory_mib": memory,
    }


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--quick", action="store_true", help="a minute: few clients, small model")
    options = parser.parse_args()
    if options.quick:
        options.clients, options.seconds, options.layers, options.width = 8, 5, 1, 64
    figures = load(options.clients, options.seconds, options.layers, options.width)
    for name, value in figures.items():
        print(f"{name:>20}  {value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
