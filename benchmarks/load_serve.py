"""Many clients at once: is any answer wrong, does memory grow, how long does one wait?

    python benchmarks/load_serve.py [--clients 64] [--seconds 120] [--quick]

A model with random weights is served by `desmatch serve`, and asked by locust (extra `bench`), each
in a process of its own. Every client (load_user.py) asks for one pair at a time on a new connection
and compares the answer with the probability that torch gave beforehand. Memory is the server's
resident size, at the end of each tenth of the time. The last line has the figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench_serve import draw_pairs, export_of, random_model, serving

from desmatch.errors import require_installed
from desmatch.model.scoring import score_pairs

if TYPE_CHECKING:
    from collections.abc import Iterator

TENTHS = 10
GRACE_SECONDS = 30
"""For answers that are under way when the time is over."""


def load(num_clients: int, seconds: int, layers: int, width: int) -> dict[str, Any]:
    """Return the figures of one load."""
    pairs = draw_pairs(500)
    model, vocabulary = random_model(layers, width)
    encoded = vocabulary.encode(*map(list, zip(*pairs, strict=True)))
    expected = score_pairs(model, encoded).scores.tolist()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "known.json").write_text(json.dumps({"pairs": pairs, "expected": expected}))
        export_of(model, vocabulary, scratch / "export", "fp32")
        with serving(scratch / "export", "--threads", "1") as (url, pid):
            clients = subprocess.Popen(
                locust(url, num_clients, seconds),
                env={**os.environ, "DESMATCH_LOAD": name},
                stdout=subprocess.DEVNULL,
            )
            memory = [*resident_mib(pid, seconds)]
            clients.wait()
        figures = json.loads((scratch / "figures.json").read_text())
    return {"clients": num_clients, "seconds": seconds, **figures, "memory_mib": memory}


def locust(url: str, num_clients: int, seconds: int) -> list[str]:
    """Return the command of all clients."""
    user = Path(__file__).with_name("load_user.py")
    return [
        *(sys.executable, "-m", "locust", "--locustfile", str(user), "--host", url, "--headless"),
        *("--users", str(num_clients), "--spawn-rate", str(num_clients)),
        *("--run-time", f"{seconds}s", "--stop-timeout", str(GRACE_SECONDS)),
    ]


def resident_mib(pid: int, seconds: int) -> Iterator[float]:
    """Yield a process's resident memory at the end of each tenth of the time."""
    for _ in range(TENTHS):
        time.sleep(seconds / TENTHS)
        words = Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()
        yield round(int(words[0]) / 1024, 1)


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--quick", action="store_true", help="a minute: few clients, small model")
    options = parser.parse_args()
    require_installed("bench", "locust")
    if options.quick:
        options.clients, options.seconds, options.layers, options.width = 8, 5, 1, 64
    figures = load(options.clients, options.seconds, options.layers, options.width)
    for name, value in figures.items():
        print(f"{name:>20}  {value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
