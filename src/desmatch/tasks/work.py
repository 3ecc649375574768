"""What a worker process is, and what it does: one task, whose words are kept for the end.

Nothing heavy is imported, so that a new process can soon be stopped in good order.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import threading
from contextlib import redirect_stdout
from dataclasses import replace
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from desmatch.stages import Run

SILENT = {"TQDM_DISABLE": "1"}
"""Environment of a worker: the bars of several would run into one another."""


def tell(line: str) -> None:
    """Print a line of a task, which `do_task` hears; unlike `print` it travels to any worker."""
    print(line)  # noqa: T201 - it is kept, not printed


def do_task(run: Run, stage_name: str, home: str, *, num_threads: int, is_retry: bool) -> str:
    """Do one step of a run; return what it said.

    Args:
        run: Of one fold, for what is done once a fold.
        stage_name: Of `STAGES`; stages hold functions, which do not travel.
        home: The folder that relative paths begin in.
        num_threads: Of torch, where the recipe does not say.
        is_retry: Whether a worker was lost that may have left checkpoints to go on from.

    Raises:
        UserError: Bad input.
    """
    import torch

    from desmatch.pipeline import execute_step
    from desmatch.stage_table import STAGES

    os.chdir(home)
    torch.set_num_threads(num_threads)
    stage = next(each for each in STAGES if each.name == stage_name)
    with redirect_stdout(io.StringIO()) as said:
        execute_step(replace(run, may_resume=True) if is_retry else run, stage)
    return said.getvalue()


def begin_process(gpu: str | None) -> None:
    """Make a new process a worker: without bars, stopped by its parent alone, never without it.

    Args:
        gpu: The one that it sees; none: all, or there is none.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which stops it
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(SILENT)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker is started by multiprocessing"
    wait([parent.sentinel])
    os._exit(1)
