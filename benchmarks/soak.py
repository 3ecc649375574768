"""Faults and bad input, in random order: does each end in the same bytes, or in one clear error?

    python benchmarks/soak.py [--minutes 60] [--seed 0] [--quick]
    python benchmarks/soak.py --only kill --episode 17        what a failing episode printed

A tiny run of the toy language is finished first. Then, until the time is over, episodes are drawn
from a shuffled deck:

    kill        SIGKILL at one to three random moments of a run; `--resume` must end in its bytes
    full        the run on a small disk in memory (needs root) that is full on the way
    limit       the same where no file may become longer than so many bytes
    locked      verbs that write on a disk that is made read-only (needs root)
    damage      a file of a run is cut short or gone; a verb that reads the run, and what it prints
    version     a run, checkpoint or export of a newer format; nothing of it may be touched
    fuzz        50 malformed files through the verbs that read one: 0 or 2, no traceback

The last line has the table as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from soak_disk import (
    Bench,
    damage_and_mend,
    fill_and_mend,
    limit_and_mend,
    lock_and_unlock,
    newer_version,
)
from soak_kill import differences, draw_moment, kill_and_resume, run_words
from soak_process import Zygote

from desmatch.data.sample import write_sample

if TYPE_CHECKING:
    from collections.abc import Callable

FUZZ_CASES = 50
"""Of an episode."""

FUZZ_MEMORY = 3 << 30
"""Bytes of address space that malformed files may take, beside the libraries'."""

MESSAGE_BYTES = 3000
"""What a command says goes to a file too, so no file may be shorter."""

OPTIONS = [
    "--data.min_count=2",
    "--validation.num_folds=3",
    "--validation.num_bootstraps=100",
    "--model.hidden_size=16",
    "--model.num_hidden_layers=2",
    "--model.num_attention_heads=2",
    "--model.intermediate_size=32",
    "--pretrain.num_train_epochs=1",
    "--pretrain.batch_size=16",
    "--pretrain.num_evaluations=2",
    "--finetune.num_train_epochs=2",
    "--finetune.batch_size=16",
    "--finetune.num_evaluations=3",
    "--machine.num_threads=1",
]
"""Make a run a matter of seconds."""


class Soak:
    """A finished run, and the episodes that start from it.

    Args:
        zygote: What runs commands.
        folder: Empty.
        seed: Of all episodes.
    """

    def __init__(self, zygote: Zygote, folder: Path, seed: int) -> None:
        self.zygote, self.seed = zygote, seed
        self.data, self.run, self.export = folder / "data", folder / "run", folder / "export"
        write_sample(self.data, seed=1, num_train=300, num_test=60, num_unlabeled=100)
        words = run_words(self.data, self.run, OPTIONS)
        done = zygote.run(*words, under=str(self.run)).require(0)
        self.num_changes, self.seconds = done.changes, done.seconds
        zygote.run("export", self.run, "--to", "onnx", "--out", self.export).require(0)
        self.scratch = folder / "scratch"
        self.bench = Bench(self.data, self.run, OPTIONS, self.scratch)

    def play(self, kind: str, number: int) -> str:
        """Play one episode; return what was done.

        Raises:
            AssertionError: It did not end well.
            OSError: A disk cannot be mounted here.
        """
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()
        rng = np.random.default_rng([self.seed, list(EPISODES).index(kind), number])
        return EPISODES[kind](self, rng)

    def kill(self, rng: np.random.Generator) -> str:
        """Kill a run one to three times."""
        moments = [draw_moment(rng, self.num_changes) for _ in range(int(rng.integers(1, 4)))]
        out = self.scratch / "run"
        kill_and_resume(self.zygote, run_words(self.data, out, OPTIONS), out, moments)
        lost = differences(out, self.run)
        hidden = [path.name for path in out.rglob(".*")]
        assert not lost, f"{moments}: {lost}"
        assert not hidden, f"{moments}: {hidden}"
        return str(moments)

    def full(self, rng: np.random.Generator) -> str:
        """Fill a disk."""
        disk = self.scratch / "disk"
        words = run_words(self.data, disk / "run", OPTIONS)
        size = int(rng.integers(5, 600)) * 4096
        return fill_and_mend(self.zygote, words, disk, self.run, size)

    def limit(self, rng: np.random.Generator) -> str:
        """Limit the length of files."""
        words = run_words(self.data, self.scratch / "run", OPTIONS)
        limit = int(rng.choice([rng.integers(MESSAGE_BYTES, 6000), rng.integers(6000, 150_000)]))
        return limit_and_mend(self.zygote, words, self.scratch / "run", self.run, limit)

    def locked(self, rng: np.random.Generator) -> str:
        """Lock a disk."""
        return lock_and_unlock(self.zygote, self.bench, rng)

    def damage(self, rng: np.random.Generator) -> str:
        """Cut a file short."""
        return damage_and_mend(self.zygote, self.bench, rng)

    def version(self, rng: np.random.Generator) -> str:
        """Let a newer version have written something."""
        return newer_version(self.zygote, self.bench, self.export, rng)

    def fuzz(self, rng: np.random.Generator) -> str:
        """Try malformed files."""
        first = int(rng.integers(1 << 40))
        places = (self.data, self.run, self.export, self.scratch / "fuzz")
        done = self.zygote.run(
            *places, first, FUZZ_CASES, function="soak_fuzz:try_cases",
            memory_bytes=FUZZ_MEMORY, seconds=3000.0,
        ).require(0)  # fmt: skip
        told = json.loads(done.out.splitlines()[-1])
        assert not told["failed"], json.dumps(told["failed"], indent=1)
        return f"{told['cases']} files, exit status 0 and 2: {told['statuses']}"


EPISODES: dict[str, Callable[[Soak, np.random.Generator], str]] = {
    "kill": Soak.kill,
    "full": Soak.full,
    "limit": Soak.limit,
    "locked": Soak.locked,
    "damage": Soak.damage,
    "version": Soak.version,
    "fuzz": Soak.fuzz,
}
DECK = {"kill": 30, "full": 8, "limit": 8, "locked": 8, "damage": 30, "version": 16, "fuzz": 100}
"""Episodes of each kind in a deck: thirty kills, five thousand files."""

NEEDS_ROOT = ("full", "locked")


def deal(seed: int, turn: int) -> list[str]:
    """Return the kinds of a deck in their order."""
    is_root = os.geteuid() == 0
    kinds = [kind for kind, count in DECK.items() for _ in range(count)]
    kinds = [kind for kind in kinds if is_root or kind not in NEEDS_ROOT]
    return [str(kind) for kind in np.random.default_rng([seed, turn]).permutation(kinds)]


def soak(scene: Soak, minutes: float) -> list[dict[str, Any]]:
    """Play episodes until the time is over; return what became of each."""
    until = time.monotonic() + 60 * minutes
    played: list[dict[str, Any]] = []
    turn = 0
    while True:
        for kind in deal(scene.seed, turn):
            if time.monotonic() > until:
                return played
            number = sum(each["kind"] == kind for each in played)
            played.append(play_and_tell(scene, kind, number))
        turn += 1


def play_and_tell(scene: Soak, kind: str, number: int) -> dict[str, Any]:
    """Play an episode and print a line about it."""
    scene.zygote.largest_mib = 0.0
    started = time.monotonic()
    problem = ""
    try:
        what = scene.play(kind, number)
    except (AssertionError, OSError, ValueError, KeyError, IndexError) as error:
        what = problem = f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - started
    print(f"{kind:<8} {number:>4} {seconds:>6.1f} s  {'FAILED ' if problem else ''}{what}",
          flush=True)  # fmt: skip
    if problem:
        print(f"again: python benchmarks/soak.py --seed {scene.seed} --only {kind} "
              f"--episode {number}", flush=True)  # fmt: skip
    return {"kind": kind, "number": number, "seconds": seconds, "problem": problem,
            "memory_mib": scene.zygote.largest_mib}  # fmt: skip


def table(played: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each kind."""
    rows = []
    for kind in EPISODES:
        of_kind = [each for each in played if each["kind"] == kind]
        if of_kind:
            failed = sum(bool(each["problem"]) for each in of_kind)
            rows.append({
                "kind": kind,
                "episodes": len(of_kind),
                "passed": len(of_kind) - failed,
                "failed": failed,
                "slowest_s": round(max(each["seconds"] for each in of_kind), 1),
                "largest_mib": max(each["memory_mib"] for each in of_kind),
            })  # fmt: skip
    return rows


def main() -> None:
    """Play, and print the table and the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=EPISODES, help="this kind alone")
    parser.add_argument("--episode", type=int, help="with --only: this one alone")
    parser.add_argument("--quick", action="store_true", help="a minute")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, Zygote(Path(scratch)) as zygote:
        scene = Soak(zygote, Path(scratch), options.seed)
        print(f"one run: {scene.seconds:.1f} s, {scene.num_changes} changes of files", flush=True)
        if options.episode is not None:
            played = [play_and_tell(scene, options.only or "kill", options.episode)]
        else:
            played = soak(scene, 0.5 if options.quick else options.minutes)
    rows = table(played)
    print(f"\n{'kind':<8} {'episodes':>8} {'passed':>7} {'failed':>7} {'slowest, s':>11} "
          f"{'memory, MiB':>12}")  # fmt: skip
    for row in rows:
        print(f"{row['kind']:<8} {row['episodes']:>8} {row['passed']:>7} {row['failed']:>7} "
              f"{row['slowest_s']:>11.1f} {row['largest_mib']:>12.1f}")  # fmt: skip
    minutes = round((time.monotonic() - started) / 60, 1)
    print(json.dumps({"seed": options.seed, "minutes": minutes, "kinds": rows}))


if __name__ == "__main__":
    main()
