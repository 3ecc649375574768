"""What a folder says of itself, to tell later whether it is whole.

A seal is `{"format": FORMAT, "files": {name: bytes}}`, written last. A file that is missing or has
another size is damaged: cut short by a disk or a copy that ended early.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from desmatch.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FORMAT = 1
"""Of the folders of runs, checkpoints and exports; a greater one is a newer version's."""


def seal(folder: Path, *, beside: Iterable[Path] = (), but: str = "") -> dict[str, Any]:
    """Return the seal of a folder whose files are all written.

    Args:
        folder: With its folders.
        beside: Files outside of it that belong to it.
        but: Name of the file that the seal itself is written to.
    """
    inside = (path for path in sorted(folder.rglob("*")) if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in inside}
    named.pop(but, None)
    named |= {os.path.relpath(path, folder): path for path in beside}
    return {"format": FORMAT, "files": {name: path.stat().st_size for name, path in named.items()}}


def damage(folder: Path, sealed: Mapping[str, Any]) -> str:
    """Return which file of a sealed folder is not what it was, or an empty text."""
    for name, expected in dict(sealed.get("files", {})).items():
        path = Path(os.path.normpath(folder / name))
        if not path.is_file():
            return f"{path}: missing"
        if (found := path.stat().st_size) != expected:
            return f"{path}: damaged, {found} bytes instead of {expected}"
    return ""


def require_format(path: Path, kept: Mapping[str, Any], *, mend: str) -> None:
    """Refuse what another version wrote in a way that this one does not read.

    Args:
        path: Of the file that says so.
        kept: What it says; without a format it is of a version before there were any.
        mend: What can be done.

    Raises:
        UserError: The format is greater, or no number.
    """
    found = kept.get("format", FORMAT)
    if type(found) is not int or found > FORMAT:
        raise UserError(
            f"{path}: format {found!r} is another version's, this one reads up to {FORMAT}; {mend}"
        )
