"""Tasks of a run, done by workers: each as soon as what it needs is there."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from typing import TYPE_CHECKING, Protocol

from desmatch.distill import require_teacher
from desmatch.errors import UserError
from desmatch.tasks.plan import plan
from desmatch.tasks.work import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future
    from types import TracebackType
    from typing import Self

    from desmatch.stages import Run
    from desmatch.tasks.plan import Task

RETRIES = 3
"""Times that a task whose worker was lost is begun again."""


class WorkerLost(Exception):  # noqa: N818 - no fault of the task's
    """The process that did a task is no more: killed, out of memory, its host gone."""


class Workers(Protocol):
    """Those who do tasks; at the end of its block they are gone, busy or not."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop what is still being done."""

    @property
    def is_free(self) -> bool:
        """Whether one more task may be given."""

    def submit(self, task: Task, *, is_retry: bool) -> Future[str]:
        """Give a task; what it says comes back, or its error, or `WorkerLost`."""


def execute_with(run: Run, hire: Callable[[Run, Sequence[Task]], Workers]) -> None:
    """Do all stages of a run as `pipeline.execute` does, several at once.

    Args:
        run: What its tasks say is said when each is done.
        hire: Takes the run and its tasks; returns the workers.

    Raises:
        UserError: Bad input, in any of the tasks, which ends the others; or a task's workers were
            lost again and again.
    """
    from desmatch.train.tracking import require_trackers

    require_trackers(run.recipe.tracking)
    tasks = plan(dataclasses.replace(run, say=tell))
    for task in tasks:
        if task.stage.reads_teacher:
            require_teacher(task.run)
    with hire(run, tasks) as workers:
        _Schedule(run, tasks, workers).do_all()


class _Schedule:
    def __init__(self, run: Run, tasks: Sequence[Task], workers: Workers) -> None:
        self.run, self.tasks, self.workers = run, tasks, workers
        self.waiting = list(range(len(tasks)))
        self.tries = [0] * len(tasks)
        self.done: set[int] = set()
        self.futures: dict[Future[str], int] = {}

    def do_all(self) -> None:
        while len(self.done) < len(self.tasks):
            self._give()
            ended, _ = concurrent.futures.wait(
                self.futures, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in ended:
                self._take(future, self.futures.pop(future))

    def _give(self) -> None:
        """Give tasks that need nothing more, the earliest first."""
        for number in list(self.waiting):
            if not self.workers.is_free:
                return
            if self.tasks[number].needs <= self.done:
                self.waiting.remove(number)
                is_retry = self.tries[number] > 0
                future = self.workers.submit(self.tasks[number], is_retry=is_retry)
                self.futures[future] = number

    def _take(self, future: Future[str], number: int) -> None:
        name = self.tasks[number].name(self.run.folder)
        try:
            said = future.result()
        except WorkerLost as error:
            self._put_back(number, name, error)
            return
        self.done.add(number)
        for line in said.splitlines():
            self.run.say(line)
        self.run.say(f"{name}: done, {len(self.done)} of {len(self.tasks)}")

    def _put_back(self, number: int, name: str, error: WorkerLost) -> None:
        self.tries[number] += 1
        if self.tries[number] > RETRIES:
            raise UserError(
                f"{name}: {self.tries[number]} workers were lost over it ({error}); if memory "
                "ran out, give fewer workers, or smaller batches, and go on with --resume"
            )
        self.run.say(f"{name}: its worker was lost ({error}), begun again")
        self.waiting = sorted([*self.waiting, number])
