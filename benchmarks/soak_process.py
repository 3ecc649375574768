"""A process that has imported desmatch once and forks for every command it is told to run.

    python benchmarks/soak_process.py        orders on standard input, outcomes on standard output

Importing torch takes most of the time of a tiny run; so aimed, thirty kills take minutes. A child
may be killed at its n-th change of the files below a folder, or some time after it, and its files
and its memory may be limited. One JSON object a line, in either direction.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "shutil.rmtree"}
"""Audited events, beside files opened for writing, that change a folder."""

IMPORTED = (
    "bulk",
    "cli",
    "console",
    "deploy",
    "export",
    "pipeline",
    "report.comparison",
    "report.figures",
    "serve.server",
    "train.mlm",
    "train.pseudo_label",
)
"""Modules that the verbs import when they are called."""

WRITES = os.O_WRONLY | os.O_RDWR


@dataclass(frozen=True, kw_only=True)
class Order:
    """A command, and what is to happen to it."""

    words: list[str] = field(default_factory=list)
    """Of the command line, the verb first."""

    under: str = ""
    """Changes below this folder are counted; empty: none."""

    kill_at: int = -1
    """The change, counted from 0, before which SIGKILL falls; -1: none."""

    kill_before: str = ""
    """The same by name: a pattern of what the event and its path must hold."""

    delay: float = 0.0
    """Seconds from there to SIGKILL."""

    file_bytes: int = -1
    """No file may become longer; -1: no limit."""

    memory_bytes: int = -1
    """Address space beside that of the libraries; -1: no limit."""

    seconds: float = 300.0
    """After these the child is killed."""

    function: str = ""
    """Instead of a command: `module:name`, called with `words`; its value is JSON in `out`."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a command."""

    status: int
    """Exit status, or less than 0: the signal."""

    out: str
    err: str
    seconds: float
    memory_mib: float
    """Largest resident memory, libraries included."""

    changes: int
    """Of the files below `under`."""

    is_late: bool
    """Killed for its time."""

    def require(self, *statuses: int) -> Outcome:
        """Return it if it ended with one of these and printed no traceback.

        Raises:
            AssertionError: It did not.
        """
        if self.status not in statuses or "Traceback" in self.err or self.is_late:
            raise AssertionError(f"status {self.status}, late {self.is_late}: {self.err[-3000:]}")
        return self


class Zygote:
    """The process that forks; a context manager.

    Args:
        folder: Its working directory.

    Attributes:
        largest_mib: Memory of the largest child since it was last set to 0.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.largest_mib = 0.0

    def __enter__(self) -> Zygote:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=self.folder,
            env=environment,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def run(self, *words: object, **settings: Any) -> Outcome:  # noqa: ANN401 - Order's fields
        """Run a command to its end.

        Args:
            words: Of the command line, the verb first.
            settings: Other fields of `Order`.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        order = Order(words=[str(word) for word in words], **settings)
        self.process.stdin.write(json.dumps(asdict(order)) + "\n")
        self.process.stdin.flush()
        outcome = Outcome(**json.loads(self.process.stdout.readline()))
        self.largest_mib = max(self.largest_mib, outcome.memory_mib)
        return outcome


def serve() -> None:
    """Carry out the orders on standard input, one after the other."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nobody but us answers
    _import_all()
    for line in sys.stdin:
        answers.write(json.dumps(asdict(carry_out(Order(**json.loads(line))))) + "\n")
        answers.flush()


def _import_all() -> None:
    """Import what the verbs import when they are called."""
    for name in IMPORTED:
        importlib.import_module(f"desmatch.{name}")


def carry_out(order: Order) -> Outcome:
    """Fork a child for an order and wait for its end."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        reading, writing = os.pipe()
        started = time.monotonic()
        child = os.fork()
        if not child:
            os.close(reading)
            _be_child(order, out, err, writing)
        os.close(writing)
        is_late = _kill_in_time(order, child, reading)
        _, status, usage = os.wait4(child, 0)
        seconds = time.monotonic() - started
        with os.fdopen(reading, "rb") as pipe:
            told = pipe.read()
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
    return Outcome(
        status=os.waitstatus_to_exitcode(status),
        out=texts[0],
        err=texts[1],
        seconds=round(seconds, 3),
        memory_mib=round(usage.ru_maxrss / 1024, 1),
        changes=int(told.rpartition(b"=")[2] or 0) if b"=" in told else 0,
        is_late=is_late,
    )


def _kill_in_time(order: Order, child: int, reading: int) -> bool:
    """Wait for the child's word or its end; kill it when asked or late; return whether it was."""
    ready, _, _ = select.select([reading], [], [], order.seconds)
    if not ready:
        os.kill(child, signal.SIGKILL)
        return True
    if os.read(reading, 1) == b"!":  # it has come to the change
        time.sleep(order.delay)
        os.kill(child, signal.SIGKILL)
    return False


def _be_child(order: Order, out: IO[bytes], err: IO[bytes], writing: int) -> None:
    """Do what the order says and leave; never returns."""
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    status = 1
    counter = Counter(order, writing)
    try:
        _limit(order)
        if order.under:
            sys.addaudithook(counter)
        status = _act(order)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(writing, f".={counter.count}".encode())
        os._exit(status)


def _act(order: Order) -> int:
    if not order.function:
        from desmatch.cli import main

        return main(order.words)
    module, _, name = order.function.partition(":")
    value = getattr(importlib.import_module(module), name)(*order.words)
    print(json.dumps(value))
    return 0


def _limit(order: Order) -> None:
    if order.file_bytes >= 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python has it: EFBIG
        resource.setrlimit(resource.RLIMIT_FSIZE, (order.file_bytes, order.file_bytes))
    if order.memory_bytes >= 0:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + order.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


class Counter:
    """Counts the changes below a folder, and halts at the one where the process is to die."""

    def __init__(self, order: Order, writing: int) -> None:
        self.order, self.writing, self.count = order, writing, 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Be told of an event, as `sys.addaudithook` does."""
        if not self._is_change(event, arguments):
            return
        if self.count == self.order.kill_at or self._is_named(event, arguments):
            os.write(self.writing, b"!")
            if not self.order.delay:
                time.sleep(60)
        self.count += 1

    def _is_named(self, event: str, arguments: tuple[Any, ...]) -> bool:
        pattern = self.order.kill_before
        return bool(pattern) and re.search(pattern, f"{event} {arguments[0]}") is not None

    def _is_change(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            flags = arguments[2]
            if not isinstance(flags, int) or not flags & WRITES:
                return False
        elif event not in CHANGES:
            return False
        path = arguments[0]
        if event in ("os.remove", "os.rmdir") and arguments[-1] not in (-1, None):
            return True  # inside of rmtree: the name alone
        return isinstance(path, str | os.PathLike) and str(path).startswith(self.order.under)


if __name__ == "__main__":
    serve()
