"""Checkpoints that are whole or do not count: what an interrupted stage goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from desmatch.errors import UserError
from desmatch.runs import read_json, write_json
from desmatch.seals import damage, require_format, seal
from desmatch.train.processes import is_main_process, wait_for_everyone

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

SEAL = "seal.json"


class CheckpointSeal(TrainerCallback):  # type: ignore[misc]
    """Says of a checkpoint that it is whole; the last of the callbacks that write into it."""

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Seal the newest checkpoint, once every process has written its part."""
        del control
        wait_for_everyone()
        if is_main_process():
            folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            write_json(folder / SEAL, seal(folder, but=SEAL))


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest checkpoint of an interrupted stage that was written to its end, or none."""
    sealed = [path.parent for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*/{SEAL}")]
    return str(max(sealed, key=lambda path: step_of(str(path)))) if sealed else None


def step_of(checkpoint: str) -> int:
    """Return the steps that were taken before a checkpoint."""
    return int(checkpoint.rsplit("-", 1)[1])


def sound_checkpoint(folder: Path) -> str | None:
    """Return the newest whole checkpoint, or none; refuse one whose files are not what they were.

    Raises:
        UserError: A file is missing or cut short, or another version wrote it.
    """
    checkpoint = last_checkpoint(folder)
    if checkpoint is None:
        return None
    path = Path(checkpoint) / SEAL
    mend = f"`rm -r {checkpoint}` lets the same command go on from the one before it"
    try:
        kept = read_json(path)
        problem = damage(path.parent, kept)
    except (UserError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {mend}") from None
    require_format(path, kept, mend=mend)
    if problem:
        raise UserError(f"{problem}; {mend}")
    return checkpoint
