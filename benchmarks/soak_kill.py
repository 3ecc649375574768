"""A run that is killed at any moment, started again, and compared with the uninterrupted one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from soak_process import Outcome, Zygote

TIMED = {"card.json", "stages.json", "report.html", "report.json"}
"""Files with times, or with what the user typed."""

ASIDE = {"diagnosis", "serving", "serving-int8"}
"""Folders that other verbs leave in a run."""

NOT_FIGURES = ("command", "recipe_name", "minutes", "minutes_by_stage", "warnings")
"""Of a card: what a resumed run may say in other words; its warnings are compared without those
that tell of resuming."""


def run_words(data: Path, out: Path, options: Sequence[str]) -> list[str]:
    """Return the command of a run."""
    return ["run", "--recipe", "demo", "--data", str(data), "--out", str(out), *options]


def kill_and_resume(
    zygote: Zygote, words: Sequence[str], out: Path, moments: Sequence[Mapping[str, Any]]
) -> Outcome:
    """Begin a run, kill it, go on and kill it again, and let the last one come to its end.

    Args:
        zygote: To run it in.
        words: Of the command.
        out: The run's folder; nothing is there.
        moments: Settings of `Order`, when each process dies; one may end before that.

    Raises:
        AssertionError: A process ends in another way.
    """
    resume: list[str] = []
    for moment in moments:
        zygote.run(*words, *resume, under=str(out), **moment).require(-9, 0)
        resume = ["--resume"]
    return zygote.run(*words, *resume).require(0)


def differences(run: Path, expected: Path) -> list[str]:
    """Return in which files or figures two runs differ, times aside."""
    ours, theirs = (contents(folder) for folder in (run, expected))
    return sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))


def contents(run: Path) -> dict[str, Any]:
    """Return the bytes of a run's files by name; of its card the figures."""
    found: dict[str, Any] = {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and path.name not in TIMED and path.relative_to(run).parts[0] not in ASIDE
    }
    del found["submission/stage.json"]  # it has the card's size
    for name in ("card.json", "submission/card.json"):
        card = json.loads((run / name).read_text())
        warnings = [each for each in card["warnings"] if "was resumed" not in each]
        found[name] = {key: value for key, value in card.items() if key not in NOT_FIGURES}
        found[name]["warnings"] = warnings
    return found


def draw_moment(rng: np.random.Generator, num_changes: int) -> dict[str, Any]:
    """Return a change and the seconds after it: none, or up to 30 ms, for what is written in C."""
    delay = 0.03 * rng.random() if rng.random() < 0.5 else 0.0
    return {"kill_at": int(rng.integers(num_changes)), "delay": delay}
