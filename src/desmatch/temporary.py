"""Files that processes share: temporary names beside a path, what killed ones left, locks."""

from __future__ import annotations

import os
import platform
import re
import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock

from desmatch.disk import disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ABANDONED_SECONDS = 24 * 3600.0
"""Temporary files of another host, whose processes cannot be asked, are removed at this age."""


def temporary(path: Path) -> Path:
    """Return the hidden path beside `path` that this process, and no other, writes it under."""
    return path.with_name(f".{path.name}.{os.getpid()}@{_host()}.partial")


def remove_abandoned(path: Path) -> None:
    """Remove what processes that are no more left of `path` under their temporary names."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(\d+)@([\w-]+)\.partial")
    for name in os.listdir(path.parent):  # noqa: PTH208 - a path is made of those that match
        match = pattern.fullmatch(name)
        if match and not _is_in_use(path.with_name(name), int(match[1]), match[2]):
            left = path.with_name(name)
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Do the block while no other process is in a block that locks `path`.

    A killed process holds no lock. Across hosts it holds where their file system has locks
    (flock), as NFS 4 and Lustre have.

    Raises:
        DiskError: The disk is full, or must not be written to.
    """
    file = path.with_name(f".{path.name}.lock")
    lock = FileLock(file)
    with disk_errors(file):
        lock.acquire()
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # those who wait for it see that, and make a new one
        lock.release()


def _host() -> str:
    return re.sub(r"[^\w-]", "-", platform.node())


def _is_in_use(left: Path, pid: int, host: str) -> bool:
    """Tell whether the process that writes a temporary file may still be there."""
    if host == _host():
        return _is_alive(pid)
    try:
        return time.time() - left.stat().st_mtime < ABANDONED_SECONDS
    except FileNotFoundError:
        return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
