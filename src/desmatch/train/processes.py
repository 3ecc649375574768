"""One process or several, started by torchrun or `accelerate launch`."""

from __future__ import annotations

import os

import torch
from accelerate import PartialState

from desmatch.errors import UserError


def is_main_process() -> bool:
    """Whether this process writes the run's files."""
    return bool(_state().is_main_process)


def num_processes() -> int:
    """How many processes share the batches of a stage."""
    return int(_state().num_processes)


def wait_for_everyone() -> None:
    """Wait until all processes are here."""
    _state().wait_for_everyone()


def _state() -> PartialState:
    """Return accelerate's state; on a CPU it joins the others only when told that it is one.

    Raises:
        UserError: The processes are to share the weights, not only the batches.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        raise UserError(
            "FSDP: weights are not sharded, averages and finished stages take whole ones; leave "
            "--use_fsdp out, the processes then share every batch (DDP)"
        )
    return PartialState(cpu=not torch.cuda.is_available())
