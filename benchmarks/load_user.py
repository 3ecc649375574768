"""What one of load_serve.py's clients does, as locust has it: `locust -f benchmarks/load_user.py`.

DESMATCH_LOAD names a folder. known.json in it has `pairs`, two texts each, and `expected`, the
score of each; the figures of all clients are written to figures.json beside it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from gevent import get_hub
from locust import FastHttpUser, events

if TYPE_CHECKING:
    from locust.env import Environment

TOLERANCE = 1e-4

FOLDER = Path(os.environ["DESMATCH_LOAD"])
KNOWN = json.loads((FOLDER / "known.json").read_text())
ROWS = np.random.default_rng(0)
DIFFERENCES: list[float] = []
"""Between an answer and the score that was expected."""


def match(user: FastHttpUser) -> None:
    """Ask for a pair on a new connection and compare; a wrong score is a failure."""
    row = int(ROWS.integers(len(KNOWN["pairs"])))
    a, b = KNOWN["pairs"][row]
    body = {"pairs": [{"a": a, "b": b}]}
    with user.client.post("/v1/match", json=body, catch_response=True) as answer:
        if answer.status_code != 200:
            return  # a failure already
        score = answer.json()["results"][0]["score"]
        DIFFERENCES.append(abs(score - KNOWN["expected"][row]))
        if DIFFERENCES[-1] > TOLERANCE:
            answer.failure("wrong answer")


class Client(FastHttpUser):
    """Asks for one pair after the other."""

    tasks: ClassVar = [match]
    default_headers: ClassVar = {"Connection": "close"}


def write_figures(environment: Environment, **_: object) -> None:
    """Keep what all clients have seen."""
    total = environment.stats.total
    figures = {
        "requests": total.num_requests,
        "failures": {each.error: each.occurrences for each in environment.stats.errors.values()},
        "largest_difference": max(DIFFERENCES),
        "requests_per_second": round(total.total_rps, 1),
        "p50_ms": total.get_response_time_percentile(0.5),
        "p99_ms": total.get_response_time_percentile(0.99),
        "max_ms": round(total.max_response_time),
    }
    (FOLDER / "figures.json").write_text(json.dumps(figures))


events.quitting.add_listener(write_figures)
get_hub().loop.update_now()  # it stood still during the imports, which would count as run time
