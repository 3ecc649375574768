from __future__ import annotations

import dataclasses
from concurrent.futures import Future

import pytest

from desmatch.cli import main
from desmatch.errors import UserError
from desmatch.intake import find_sources
from desmatch.stages import Run
from desmatch.tasks.on import execute_on
from desmatch.tasks.schedule import RETRIES, WorkerLost, execute_with


class Scripted:
    """Workers that end each task at once, as a script says."""

    def __init__(self, tasks, outcome, room=2):
        self.numbers = {id(task): number for number, task in enumerate(tasks)}
        self.outcome, self.room = outcome, room
        self.given, self.is_open = [], False
        self.futures = []

    def __enter__(self):
        self.is_open = True
        return self

    def __exit__(self, *_):
        self.is_open = False

    @property
    def is_free(self):
        return sum(not each.done() for each in self.futures) < self.room

    def submit(self, task, *, is_retry):
        number = self.numbers[id(task)]
        self.given.append((number, is_retry))
        future = Future()
        self.futures.append(future)
        said = self.outcome(number, self.given.count((number, True)))
        future.set_exception(said) if isinstance(said, Exception) else future.set_result(said)
        return future


@pytest.fixture
def run(sample_folder, tiny_recipe, tmp_path):
    validation = dataclasses.replace(tiny_recipe.validation, folds="all")
    recipe = dataclasses.replace(tiny_recipe, validation=validation)
    return Run(tmp_path / "run", recipe, find_sources(sample_folder))


def executed(run, outcome):
    """The workers, and the lines that the user saw."""
    hired, lines = [], []

    def hire(_, tasks):
        hired.append(Scripted(tasks, outcome))
        return hired[0]

    try:
        execute_with(dataclasses.replace(run, say=lines.append), hire)
    finally:
        assert not hired[0].is_open
    return hired[0], lines


def test_every_task_is_done_once_and_says_so(run):
    workers, lines = executed(run, lambda number, _: f"{number} said\n")
    assert sorted(workers.given) == [(number, False) for number in range(11)]
    assert lines[:2] == ["0 said", "prepare: done, 1 of 11"]
    assert lines[-1] == "report: done, 11 of 11"


def test_a_task_whose_worker_was_lost_is_begun_again_and_may_resume(run):
    lost = WorkerLost("process 7 ended")
    workers, lines = executed(run, lambda number, tries: lost if (number, tries) == (2, 0) else "")
    assert [each for each in workers.given if each[0] == 2] == [(2, False), (2, True)]
    assert len(workers.given) == 12
    assert "fold-0/finetune: its worker was lost (process 7 ended), begun again" in lines


def test_it_is_not_begun_again_for_ever(run):
    with pytest.raises(UserError, match=rf"^fold-0/pretrain: {RETRIES + 1} workers were lost .*"
                       r"\(killed\).*go on with --resume"):  # fmt: skip
        executed(run, lambda number, _: WorkerLost("killed") if number == 1 else "")


def test_an_error_of_one_task_ends_all(run):
    with pytest.raises(UserError, match=r"^train\.tsv:3: no$"):
        executed(run, lambda number, _: UserError("train.tsv:3: no") if number == 0 else "")


@pytest.mark.parametrize("place", ["processes:0", "processes:x", "elsewhere", "processes:-1"])
def test_an_unknown_place_is_refused(place, sample_folder, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["run", "--data", str(sample_folder), "--out", str(out), "--on", place]) == 2
    assert f"--on {place}: expected local, processes, processes:N" in capsys.readouterr().err
    assert not out.exists()


def test_torchrun_and_places_do_not_go_together(run, monkeypatch):
    monkeypatch.setattr("desmatch.train.processes.num_processes", lambda: 2)
    with pytest.raises(UserError, match="--on processes: start it without torchrun"):
        execute_on(run, "processes")
