"""Loss and validation AUC on their way to TensorBoard, MLflow and Weights & Biases."""

from __future__ import annotations

import shutil
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from transformers.integrations import TensorBoardCallback

from desmatch.errors import UserError, listed
from desmatch.train.processes import is_main_process

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import Trainer

    from desmatch.recipe import TrackingConfig

INSTALLS = {
    "tensorboard": "pip install 'desmatch[tensorboard]'",
    "mlflow": "pip install mlflow",
    "wandb": "pip install wandb",
}
"""A tracker's package to the line that installs it."""


def require_trackers(tracking: TrackingConfig) -> None:
    """Look for the packages of a recipe's trackers, before anything is trained.

    Raises:
        UserError: One is not installed; the message gives the line that installs it.
    """
    missing = [name for name in tracking.trackers if find_spec(name) is None]
    if missing:
        raise UserError(
            listed(
                f"--tracking.report_to {name}: {name} is not installed; {INSTALLS[name]}"
                for name in missing
            )
        )


def add_tensorboard(
    trainer: Trainer, tracking: TrackingConfig, folder: Path, *, last_step: int | None
) -> None:
    """Let a stage write TensorBoard's files, if the recipe says so.

    Args:
        trainer: Of the stage.
        tracking: The recipe's trackers.
        folder: For the files of this stage alone; emptied where it begins.
        last_step: Of the checkpoint from which training goes on: what was written beyond it is
            hidden. None: training begins.
    """
    if "tensorboard" not in tracking.trackers or not is_main_process():
        return
    from torch.utils.tensorboard import SummaryWriter

    if last_step is None:
        shutil.rmtree(folder, ignore_errors=True)
    first_step = None if last_step is None else last_step + 1
    trainer.add_callback(TensorBoardCallback(SummaryWriter(str(folder), purge_step=first_step)))


def end_tracking(tracking: TrackingConfig) -> None:
    """Close what the Trainer leaves open: a run of wandb would go on through the next stage."""
    if "wandb" in tracking.trackers:
        import_module("wandb").finish()
