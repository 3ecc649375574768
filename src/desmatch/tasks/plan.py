"""The graph of a run's tasks: each is one step of `stages.steps`, and waits for what it reads."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from desmatch.stage_table import stage_that_writes
from desmatch.stages import steps

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from desmatch.stage_table import Stage
    from desmatch.stages import Run


class Task(NamedTuple):
    """One step.

    Attributes:
        run: That it is a step of; of a stage once a fold, the run of that fold alone.
        stage: What is done.
        needs: Numbers of the tasks that must be finished before.
    """

    run: Run
    stage: Stage
    needs: frozenset[int]

    def name(self, home: Path) -> str:
        """Return its name in a run whose folder is `home`, such as members/a/fold-0/finetune."""
        folder = self.run.fold_folder if self.stage.is_per_fold else self.run.folder
        return (folder.relative_to(home) / self.stage.name).as_posix()


def plan(run: Run) -> list[Task]:
    """Return the tasks of a run, each after those that it needs.

    A task needs those that write what its stage reads; an ensemble's, those of its members; and
    one whose digest an earlier member has, that one, whose files it takes over.

    Raises:
        UserError: A data file, checkpoint or teacher is missing.
    """
    tasks: list[Task] = []
    numbers: dict[Path, int] = {}
    for part, stage in steps(run):
        inputs = [*_inputs(part, stage), *_givers(part, stage, tasks)]
        tasks.append(Task(part, stage, frozenset(numbers[path] for path in inputs)))
        numbers[part.stage_folder(stage.writes).path] = len(tasks) - 1
    return tasks


def num_at_once(tasks: Sequence[Task]) -> int:
    """Return how many tasks are at most as far from the first as one another."""
    depths: list[int] = []
    for task in tasks:
        depths.append(1 + max((depths[each] for each in task.needs), default=0))
    return max(Counter(depths).values())


def _inputs(run: Run, stage: Stage) -> Iterator[Path]:
    """Yield the folders that a step reads."""
    for name in stage.reads:
        writer = stage_that_writes(name)
        if writer.is_wanted(run.recipe):
            yield from (part.stage_folder(name).path for part in run.parts(writer))
    if stage.reads_members:
        yield from (each.stage_folder(stage.writes).path for each in run.members.values())


def _givers(run: Run, stage: Stage, earlier: Sequence[Task]) -> Iterator[Path]:
    """Yield the folder of an earlier member that is this very stage, if there is one."""
    folder = run.stage_folder(stage.writes)
    for task in earlier:
        if task.stage is stage and task.run.folder in run.donors:
            given = task.run.stage_folder(stage.writes)
            if (given.digest, given.label) == (folder.digest, folder.label):
                yield given.path
                return
