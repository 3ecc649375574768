"""One process or several, started by torchrun or `accelerate launch`."""

from __future__ import annotations

import torch
from accelerate import PartialState


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
    """Return accelerate's state; on a CPU it joins the others only when told that it is one."""
    return PartialState(cpu=not torch.cuda.is_available())
