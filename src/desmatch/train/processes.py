"""One process or several, started by torchrun or `accelerate launch`."""

from __future__ import annotations

from accelerate import PartialState


def is_main_process() -> bool:
    """Whether this process writes the run's files."""
    return bool(PartialState().is_main_process)


def wait_for_everyone() -> None:
    """Wait until all processes are here."""
    PartialState().wait_for_everyone()
