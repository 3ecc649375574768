"""Workers that are processes of this machine, the cores or GPUs divided among them."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from desmatch.runs import usable_cores
from desmatch.tasks.plan import num_at_once
from desmatch.tasks.schedule import WorkerLost
from desmatch.tasks.work import begin_process, do_task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    from desmatch.tasks.plan import Task

T = TypeVar("T")

GRACE_SECONDS = 10.0
"""For a worker that is stopped to remove what it has half written."""


def threads_of_each(num_workers: int, num_cores: int) -> int:
    """Return the threads of torch in each worker: as OMP_NUM_THREADS says, else a fair share."""
    if "OMP_NUM_THREADS" in os.environ:
        return int(torch.get_num_threads())
    return max(1, num_cores // num_workers)


def visible_gpus() -> list[str]:
    """Return the GPUs of this process by the names that CUDA_VISIBLE_DEVICES has for them."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    named = names.split(",") if names else [str(each) for each in range(torch.cuda.device_count())]
    return named[: torch.cuda.device_count()]


class Processes:
    """Processes that were started anew (spawn), as CUDA and threads want it.

    Args:
        tasks: To be done.
        count: Of processes; 0: one for each task that may be done at once, but not more than there
            are GPUs or, without a GPU, cores.
    """

    def __init__(self, tasks: Sequence[Task], count: int = 0) -> None:
        gpus = visible_gpus()
        count = count or min(num_at_once(tasks), len(gpus) or usable_cores())
        self.num_threads = threads_of_each(count, usable_cores())
        self.slots = [Slot(gpus[slot % len(gpus)] if gpus else None) for slot in range(count)]

    def __enter__(self) -> Self:
        """Begin; processes start with their first task."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop all processes."""
        for slot in self.slots:
            slot.stop()
        for slot in self.slots:
            slot.join()

    @property
    def is_free(self) -> bool:
        """Whether a process has nothing to do."""
        return any(slot.is_free for slot in self.slots)

    def submit(self, task: Task, *, is_retry: bool) -> Future[str]:
        """Give a task to a process that has nothing to do."""
        slot = next(slot for slot in self.slots if slot.is_free)
        settings = {"num_threads": self.num_threads, "is_retry": is_retry}
        return slot.submit(do_task, task.run, task.stage.name, str(Path.cwd()), **settings)


class Slot:
    """One process at a time; when it is lost it takes none of the others along.

    Args:
        gpu: The one that it sees; none: all, or there is none.
    """

    def __init__(self, gpu: str | None) -> None:
        self.gpu = gpu
        self.pool: ProcessPoolExecutor | None = None
        self.process: Any = None
        self.current: Future[Any] | None = None

    @property
    def is_free(self) -> bool:
        """Whether it has nothing to do."""
        return self.current is None or self.current.done()

    def submit(self, act: Callable[..., T], *values: Any, **settings: Any) -> Future[T]:  # noqa: ANN401
        """Let the process call a function; it is started, or replaced, where that is needed."""
        given: Future[T] = Future()
        self.current = given
        call = partial(act, *values, **settings)
        try:
            ended = (self.pool or self._start()).submit(call)
        except BrokenProcessPool:  # lost while it had nothing to do
            ended = self._start().submit(call)
        ended.add_done_callback(lambda ended: self._pass_on(ended, given))
        return given

    def _start(self) -> ProcessPoolExecutor:
        """Start a process; the pool does so with its first call, and tells its children's names."""
        self.pool = ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), initializer=begin_process, initargs=(self.gpu,)
        )
        before = set(multiprocessing.active_children())
        self.pool.submit(os.getpid)
        (self.process,) = set(multiprocessing.active_children()) - before
        return self.pool

    def _pass_on(self, ended: Future[T], given: Future[T]) -> None:
        error = ended.exception() if not ended.cancelled() else WorkerLost("stopped")
        if isinstance(error, BrokenProcessPool):
            self.pool = None
            error = WorkerLost(f"process {self.process.pid} ended")
        if error is None:
            given.set_result(ended.result())
        else:
            given.set_exception(error)

    def stop(self) -> None:
        """End the process, in the middle of what it does if it must be."""
        if self.pool is not None:
            if not self.is_free:
                self.process.terminate()
            self.pool.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Wait until the process has ended, for `GRACE_SECONDS` at most."""
        if self.pool is not None:
            self.process.join(GRACE_SECONDS)
            self.process.kill()
            self.process.join()
