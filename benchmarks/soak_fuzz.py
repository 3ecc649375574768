"""Malformed files, and every verb that reads one: exit status 0 or 2, no traceback, no hang.

A case is decided by a number: which kind of file, and which verb reads it in which place.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
import signal
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from desmatch.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Rng = np.random.Generator

PROCESSOR_SECONDS = 20
"""A case that takes more has failed; most need less than one."""

WALL_SECONDS = 300
"""The same by the clock, on a machine that does other work too: it hangs."""


Item = TypeVar("Item")


def _one(rng: Rng, items: Sequence[Item]) -> Item:
    return items[int(rng.integers(len(items)))]


def _bytes(rng: Rng, length: int) -> bytes:
    return rng.integers(0, 256, length, np.uint8).tobytes()


def _mutated(rng: Rng, good: bytes) -> bytes:
    """Change, drop, repeat or insert bytes of a good file."""
    content = bytearray(good)
    for _ in range(int(rng.integers(1, 6))):
        at, length = int(rng.integers(len(content) + 1)), int(rng.integers(1, 20))
        match int(rng.integers(4)):
            case 0:
                content[at : at + length] = _bytes(rng, length)
            case 1:
                del content[at : at + length]
            case 2:
                content[at:at] = content[:length]
            case _:
                content[at:at] = _one(rng, MARKS)
    return bytes(content)


MARKS = [b"\0", b"\t", b"\n", b"\r", b"\xef\xbb\xbf", b"\xff\xfe", "\u2028".encode(), b"1e999",
         b"NaN", b"{", b"]", b'"', b"&a", b"*a", b"!!python/object:os.system ", b"-1",
         b"\xed\xa0\x80"]  # fmt: skip


def _lines(rng: Rng) -> bytes:
    """Return rows that are nearly right, each in its own way."""
    pieces = [b"1 2 3", b"", b" ", b"x" * 500, b"0", b"1", b"2", b"nan", b"\xff", b"\0", b"[MASK]",
              "\u4f60 \u3000 9".encode(), b"9" * 400, b"a\x0bb"]  # fmt: skip
    rows = [
        b"\t".join(_one(rng, pieces) for _ in range(int(rng.integers(1, 5))))
        for _ in range(int(rng.integers(1, 40)))
    ]
    return _one(rng, [b"\n", b"\r\n", b"\r", b"\n\n"]).join(rows)


def _json_lines(rng: Rng) -> bytes:
    values = [
        "1 2",
        "",
        ["1", 2],
        [],
        [[1]],
        None,
        1,
        1.5,
        True,
        {"a": 1},
        "\ud800",
        "x\ty",
        "9" * 9,
    ]
    rows = []
    for _ in range(int(rng.integers(1, 40))):
        keys = [str(key) for key in rng.choice(["a", "b", "label", "c"], 3, replace=False)]
        rows.append(json.dumps({key: values[rng.integers(len(values))] for key in keys}))
    return "\n".join(rows).encode() + _one(rng, [b"", b"\n", b'\n{"a": NaN, "b": 1}', b"\n[1]"])


def _parquet(rng: Rng) -> bytes:
    """Return a table whose columns have names or types of their own."""
    columns: list[Any] = [
        ["1 2", "3", None],
        [[1, 2], [3], None],
        [[["1"]], [], None],
        [{"x": 1}, {"x": 2}, None],
        [1.5, float("nan"), None],
        [1, 0, None],
        [b"\xff", b"1", None],
        [True, False, None],
        ["\0", "a\tb\nc", ""],
        pa.array(["1 2", "3", None]).dictionary_encode(),
        pa.array([1, 2, 3], pa.timestamp("s")),
        pa.nulls(3),
    ]
    names = rng.choice(["a", "b", "label", "A", "a "], int(rng.integers(1, 5)), replace=False)
    arrays = [pa.array(columns[rng.integers(len(columns))]) for _ in names]
    stream = io.BytesIO()
    pq.write_table(pa.table(arrays, names=[str(name) for name in names]), stream)
    return stream.getvalue()


def _yaml(rng: Rng) -> bytes:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
        for before, after in zip("abcdefghi", "bcdefghij", strict=True)
    )
    keys = ["seed", "data", "model", "pretrain", "validation.num_folds", "members", "machine",
            "sede", "predict", "ensemble", "data.min_count", "finetune", "distill",
            "pseudo_labels"]  # fmt: skip
    values = ["1", "-1", "x", "[1]", "{}", "{x: 1}", "null", "1e99", "nan", ".inf", "2020-01-01",
              "~", "!!python/object/apply:os.system ['true']", "!!binary aGk=", "*b", "&b 3",
              "{<<: {seed: 1}}", "{min_count: 1e999}", "{hidden_size: -4}", "? [1]", "'\\0'",
              "{a: {b: 3}}", "9" * 5000, "0x10", "1_000", "true", "{init: /dev/zero}"]  # fmt: skip
    lines = [f"{_one(rng, keys)}: {_one(rng, values)}" for _ in range(int(rng.integers(1, 4)))]
    whole = [bomb, "[" * 5000, "- 1", "3", "---\n---\n", "\t", "seed: 1\n...\nx", "1: 2",
             "? {a: b}\n: c", "members: {x: {seed: 1}, y: [3]}",
             "members: {'../x': {}, '': {}}"]  # fmt: skip
    return (_one(rng, whole) if rng.random() < 0.3 else "\n".join(lines)).encode()


def _json(rng: Rng) -> bytes:
    whole = ["[" * 100_000, "{}", "[]", "null", "3", '{"a": NaN}', "NaN", '{"a":1e999}',
             '"\\ud800"', '{"a": {"b": []}}', "9" * 6000, '{"[MASK]": -1, "x": "y"}',
             "{'a': 1}"]  # fmt: skip
    return _one(rng, whole).encode()


def _huge(rng: Rng) -> bytes:
    """Return 10 MB of one line, of one id, of a million columns, of a gzip's zeros and the like."""
    match int(rng.integers(7)):
        case 0:
            return b"1 " * 5_000_000
        case 1:
            return b"7" * 10_000_000 + b"\t1\t1\n"
        case 2:
            return b"1\t" * 1_000_000
        case 3:
            return gzip.compress(bytes(200 << 20), 9)
        case 4:
            return gzip.compress(gzip.compress(bytes(50 << 20), 9), 9)
        case 5:
            return b"\n" * 1_000_000
        case _:
            return b'{"a": "' + b"1 " * 2_000_000 + b'", "b": "2"}\n'


def _packed(rng: Rng, good: bytes) -> bytes:
    """Return a gzip that is cut, doubled or damaged."""
    content = gzip.compress(good)
    match int(rng.integers(3)):
        case 0:
            return content[: int(rng.integers(len(content)))]
        case 1:
            return content + _bytes(rng, 20)
        case _:
            return _mutated(rng, content)


def _coded(rng: Rng, good: bytes) -> bytes:
    text = good.decode(errors="replace")
    return text.encode(_one(rng, ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "gb18030"]))


KINDS: dict[str, Callable[[Rng, bytes], bytes]] = {
    "mutated": _mutated,
    "cut": lambda rng, good: good[: int(rng.integers(len(good) + 1))],
    "lines": lambda rng, _: _lines(rng),
    "jsonl": lambda rng, _: _json_lines(rng),
    "parquet": lambda rng, _: _parquet(rng),
    "broken parquet": lambda rng, _: _mutated(rng, _parquet(rng)),
    "yaml": lambda rng, _: _yaml(rng),
    "json": lambda rng, _: _json(rng),
    "huge": lambda rng, _: _huge(rng),
    "gzip": _packed,
    "coded": _coded,
    "ends": lambda rng, good: good.replace(b"\n", _one(rng, [b"\r\n", b"\r", b"\n\r", b"\x85"])),
    "random": lambda rng, _: _bytes(rng, int(rng.integers(0, 3000))),
    "empty": lambda rng, _: _one(rng, [b"", b"\n", b"\xef\xbb\xbf", b"\0", b" "]),
}
"""Kind of a malformed file to its content, drawn, made from a good file of its place."""

PLACES = ("folder", "pipe", "missing", "loop")
"""What may stand where a file is expected."""

KIND_SUFFIX = {"jsonl": ".jsonl", "parquet": ".parquet", "broken parquet": ".parquet"}
SUFFIXES = (".tsv", ".tsv", ".tsv.gz", ".jsonl", ".parquet")


class Bench:
    """A finished run and its data, in which malformed files take the place of good ones.

    Args:
        data: Folder of train, test, unlabeled and test_labels.
        run: A finished run of it, not to be changed.
        export: The same run as graphs, not to be changed.
        scratch: A folder for what a case writes.
    """

    def __init__(self, data: Path, run: Path, export: Path, scratch: Path) -> None:
        self.data, self.run, self.export, self.scratch = data, run, export, scratch
        self.good_recipe = (run / "recipe.yaml").read_bytes()

    def place(self, rng: Rng, good: bytes, suffixes: tuple[str, ...] = SUFFIXES) -> Path:
        """Return the path of a malformed file, or of what is no file at all."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()
        path = self.scratch / f"f{_one(rng, suffixes)}"
        if rng.random() < 0.03:
            _put_no_file(path, _one(rng, PLACES))
            return path
        weights = np.array([0.25 if kind == "huge" else 3 for kind in KINDS])
        kind = str(rng.choice(list(KINDS), p=weights / weights.sum()))
        if kind in KIND_SUFFIX and rng.random() < 0.8 and suffixes == SUFFIXES:
            path = path.with_name(f"f{KIND_SUFFIX[kind]}")
        content = KINDS[kind](rng, good)
        path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
        return path

    def words(self, rng: Rng) -> list[str]:
        """Return a command that reads a malformed file."""
        verb = list(COMMANDS)[int(rng.choice(len(COMMANDS), p=_SHARES))]
        return [str(word) for word in COMMANDS[verb](self, rng)]

    def pairs(self, name: str, rng: Rng) -> Path:
        """Return a malformed file of pairs, made from a good one or not."""
        return self.place(rng, (self.data / f"{name}.tsv").read_bytes())

    def spoilt(self, whole: Path, rng: Rng) -> Path:
        """Return a copy of a folder in which one file is malformed."""
        names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
        name = names[int(rng.integers(len(names)))]
        content = (whole / name).read_bytes()
        bad = self.place(rng, content, (".x",)) if rng.random() < 0.5 else None
        kept = bad.read_bytes() if bad is not None and bad.is_file() else _same_size(rng, content)
        shutil.rmtree(self.scratch, ignore_errors=True)
        shutil.copytree(whole, self.scratch / "run", copy_function=os.link)
        (self.scratch / "run" / name).unlink()
        (self.scratch / "run" / name).write_bytes(kept)
        return self.scratch / "run"


def _same_size(rng: Rng, content: bytes) -> bytes:
    """Return a file whose size tells nothing."""
    spoilt = np.frombuffer(content, np.uint8).copy()
    for _ in range(int(rng.integers(1, 9))):
        if len(spoilt):
            spoilt[rng.integers(len(spoilt))] = rng.integers(256)
    return spoilt.tobytes()


def _put_no_file(path: Path, place: str) -> None:
    match place:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "loop":
            path.symlink_to(path)


SPACE = b"finetune.learning_rate: [1e-5, 1e-3]\n"

_REFEREE = ["referee", "--url", "http://127.0.0.1:9", "--wait", "0.1", "--timeout", "0.1", "--test"]

COMMANDS: dict[str, Callable[[Bench, Rng], list[Any]]] = {
    "inspect train": lambda b, rng: [
        "inspect", "--train", b.pairs("train", rng), "--test", b.data / "test.tsv"],
    "inspect test": lambda b, rng: [
        "inspect", "--train", b.data / "train.tsv", "--test", b.pairs("test", rng)],
    "inspect unlabeled": lambda b, rng: [
        "inspect", "--train", b.data / "train.tsv", "--test", b.data / "test.tsv",
        "--unlabeled", b.pairs("unlabeled", rng)],
    "prepare train": lambda b, rng: [
        "prepare", "--recipe", "demo", "--train", b.pairs("train", rng), "--skip-bad",
        "--test", b.data / "test.tsv", "--out", b.scratch / "out"],
    "prepare recipe": lambda b, rng: [
        "prepare", "--recipe", b.place(rng, b.good_recipe, (".yaml",)),
        "--data", b.data, "--out", b.scratch / "out"],
    "tune space": lambda b, rng: [
        "tune", "demo", "--space", b.place(rng, SPACE, (".yaml",)),
        "--trials", 1, "--train", b.scratch / "none", "--test", b.data / "test.tsv",
        "--out", b.scratch / "out"],
    "predict test": lambda b, rng: [
        "predict", b.run, "--test", b.pairs("test", rng), "--out", b.scratch / "scores"],
    "submit check": lambda b, rng: [
        "submit", "--check", b.place(
            rng, (b.run / "submission" / f"result.{_one(rng, ['tsv', 'zip'])}").read_bytes(),
            (".tsv", ".zip")), "--test", b.data / "test.tsv"],
    "submit test": lambda b, rng: [
        "submit", "--check", b.run / "submission/result.tsv", "--test", b.pairs("test", rng)],
    "evaluate labels": lambda b, rng: [
        "evaluate", b.run, "--labels", b.place(rng, (b.data / "test_labels.tsv").read_bytes())],
    "referee test": lambda b, rng: [
        *_REFEREE, b.pairs("test", rng), "--out", b.scratch / "scores"],
    "report run": lambda b, rng: ["report", b.spoilt(b.run, rng)],
    "report runs": lambda b, rng: [
        "report", b.run, b.spoilt(b.run, rng), "--out", b.scratch / "page.html"],
    "runs": lambda b, rng: ["runs", b.spoilt(b.run, rng).parent],
    "predict run": lambda b, rng: [
        "predict", b.spoilt(b.run, rng), "--test", b.data / "test.tsv",
        "--out", b.scratch / "scores"],
    "evaluate run": lambda b, rng: [
        "evaluate", b.spoilt(b.run, rng), "--labels", b.data / "test_labels.tsv"],
    "evaluate": lambda b, rng: ["evaluate", b.spoilt(b.run, rng)],
    "submit run": lambda b, rng: ["submit", b.spoilt(b.run, rng)],
    "finetune run": lambda b, rng: ["finetune", b.spoilt(b.run, rng)],
    "diagnose run": lambda b, rng: ["diagnose", b.spoilt(b.run, rng), "--batches", 1],
    "export run": lambda b, rng: ["export", b.spoilt(b.run, rng), "--out", b.scratch / "out"],
    "serve": lambda b, rng: [
        "serve", b.spoilt(b.export, rng), "--port", 1, "--host", "192.0.2.1"],  # no address of ours
}  # fmt: skip
"""A verb and the place of the file to a command."""

SHARES = {
    "report run": 0.1,
    "report runs": 0.1,
    "finetune run": 0.1,
    "diagnose run": 0.2,
    "inspect unlabeled": 0.3,
    "inspect test": 0.5,
}
"""How often a command that takes seconds is drawn; others count 1."""

_WEIGHTS = np.array([SHARES.get(name, 1.0) for name in COMMANDS])
_SHARES = _WEIGHTS / _WEIGHTS.sum()


class LateError(Exception):
    """A case took too long."""


def _late(*_: object) -> None:
    raise LateError(f"more than {PROCESSOR_SECONDS} s of the processor, or {WALL_SECONDS}")


@contextlib.contextmanager
def _limited_time() -> Iterator[None]:
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, _late)
    signal.setitimer(signal.ITIMER_PROF, PROCESSOR_SECONDS)
    signal.alarm(WALL_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)


def try_case(bench: Bench, number: int) -> dict[str, Any]:
    """Run one case; return its command, seconds, status and problem, if there is one."""
    words = bench.words(np.random.default_rng([number, 5000]))
    said = io.StringIO()
    status: Any = None
    problem = ""
    started = time.monotonic()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            with _limited_time():
                status = main(words)
        except SystemExit as end:
            status = end.code
        except (Exception, LateError):
            problem = traceback.format_exc(limit=-6)
    text = said.getvalue()
    if not problem and (status not in (0, 2) or "Traceback" in text):
        problem = f"status {status}: {text[-2000:]}"
    if status == 2 and "error: " not in text:
        problem = f"no reason: {text[-500:]}"
    seconds = time.monotonic() - started
    return {"case": number, "words": words, "status": status, "seconds": round(seconds, 3),
            "problem": problem, "said": text[-300:]}  # fmt: skip


def try_cases(data: str, run: str, export: str, scratch: str, first: str, count: str) -> Any:  # noqa: ANN401
    """Run cases one after the other in this process; return those with a problem, and figures."""
    bench = Bench(*map(Path, (data, run, export, scratch)))
    tried = [try_case(bench, number) for number in range(int(first), int(first) + int(count))]
    slowest = max(tried, key=lambda case: case["seconds"])
    return {
        "cases": len(tried),
        "statuses": [sum(case["status"] == status for case in tried) for status in (0, 2)],
        "slowest": slowest,
        "failed": [case for case in tried if case["problem"]],
    }
