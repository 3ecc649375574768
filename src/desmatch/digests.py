"""Digests of what a run is given: its data files, and the checkpoint that it starts from."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from desmatch.errors import UserError
from desmatch.runs import file_digest

if TYPE_CHECKING:
    from desmatch.intake import Sources
    from desmatch.recipe import Recipe


def digest_sources(sources: Sources) -> dict[str, list[str]]:
    """Return the digests of the files of each role.

    Raises:
        UserError: One is missing.
    """
    digests = {}
    for role, paths in sources.by_role().items():
        missing = [str(path) for path in paths if not path.is_file()]
        if missing:
            raise UserError("\n".join(f"{path}: no such file" for path in missing))
        digests[role] = [file_digest(path) for path in paths]
    return digests


def digest_init(recipe: Recipe) -> list[str]:
    """Return the digests of the checkpoint's files; none where there is no checkpoint.

    Raises:
        UserError: One is missing.
    """
    if recipe.model.init is None:
        return []
    folder = Path(recipe.model.init)
    refuse_pickle(folder)
    files = [folder / name for name in ("config.json", "vocab.txt", "model.safetensors")]
    if recipe.model.reference_counts is not None:
        files.append(Path(recipe.model.reference_counts))
    for path in files:
        if not path.is_file():
            raise UserError(f"{path}: no such file; --model.init needs a folder with config.json, "
                            "vocab.txt and model.safetensors")  # fmt: skip
    return [file_digest(path) for path in files]


PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
"""Files of weights that are pickles, the likeliest first."""


def refuse_pickle(folder: Path) -> None:
    """Refuse a checkpoint whose weights are pickled alone: opening a pickle runs what it says.

    Raises:
        UserError: It is one; the message has a command that converts it without running anything.
    """
    target = folder / "model.safetensors"
    pickles = [path for pattern in PICKLES for path in sorted(folder.glob(pattern))]
    if target.exists() or not pickles:
        return
    code = (
        "import torch, safetensors.torch as s; "
        f"state = torch.load({str(pickles[0])!r}, map_location='cpu', weights_only=True); "
        "s.save_file({name: each.clone().contiguous() for name, each in state.items()}, "
        f"{str(target)!r})"
    )
    raise UserError(
        f"{pickles[0]}: pickled weights are not read, for a pickle runs code as it is opened; "
        f"`{shlex.join(['python', '-c', code])}` makes {target.name} of them and runs none"
    )
