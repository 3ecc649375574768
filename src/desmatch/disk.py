"""What a full or locked disk raises as one error that names the place; and what is no file."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from desmatch.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LOCKED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)

WORDS_OF_FULL = (
    *(os.strerror(number) for number in FULL),
    "requested and",  # numpy: "100 requested and 0 written"
    "inline_container.cc",  # torch, which keeps the reason to itself
    "database or disk is full",
)
"""What libraries that are not Python's say of a disk that takes no more."""


class DiskError(UserError):
    """A file cannot be written; the command line adds how the command goes on."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what is raised because a disk is full or locked into a `DiskError` that names `path`.

    Everything else passes as it is.
    """
    try:
        yield
    except DiskError:
        raise
    except Exception as error:
        if problem := disk_problem(error):
            raise DiskError(f"{path}: cannot be written: {problem}") from error
        raise


def disk_problem(error: Exception) -> str:
    """Return what is wrong with the disk and the mend, or an empty text."""
    number = getattr(error, "errno", None)
    if number in FULL or any(words in str(error) for words in WORDS_OF_FULL):
        reason = os.strerror(number) if number in FULL else os.strerror(errno.ENOSPC)
        return f"{reason}; free space on that disk"
    if number in LOCKED:
        return f"{os.strerror(number)}; make that folder one you may write to, or name another"
    return ""


def refuse_pipe(path: Path) -> None:
    """Refuse what is there and is no file: it may never end, and cannot be read twice.

    Raises:
        UserError: It is a pipe, a socket or a device.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(
            f"{path}: expected a file, got a pipe or device, which cannot be read twice; "
            "write it to a file first"
        )
