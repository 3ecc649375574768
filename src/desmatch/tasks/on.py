"""Where the tasks of a run are done, as the option `--on` names it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from desmatch.errors import UserError, require_installed
from desmatch.pipeline import execute
from desmatch.tasks.processes import Processes
from desmatch.tasks.schedule import execute_with

if TYPE_CHECKING:
    from desmatch.stages import Run

PLACES = "local, processes, processes:N, ray, ray:ADDRESS or ray://HOST:PORT"
"""What may be named."""


def execute_on(run: Run, place: str) -> None:
    """Do all stages of a run.

    Args:
        run: To do.
        place: `local`, one step after the other in this process, or another of `PLACES`.

    Raises:
        UserError: There is no such place, or bad input.
    """
    from desmatch.train.processes import num_processes

    kind, _, detail = place.partition(":")
    if place == "local":
        execute(run)
        return
    if num_processes() > 1:
        raise UserError(f"--on {place}: start it without torchrun, which has processes of its own")
    if kind == "ray":
        require_installed("ray", "ray")
        from desmatch.tasks.ray_cluster import RayCluster

        address = place if detail.startswith("//") else detail or None
        execute_with(run, lambda run, tasks: RayCluster(run, tasks, address))
    elif kind == "processes" and (not detail or (detail.isdecimal() and int(detail))):
        execute_with(run, lambda _, tasks: Processes(tasks, int(detail or 0)))
    else:
        raise UserError(f"--on {place}: expected {PLACES}")
