from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from desmatch.intake import find_sources
from desmatch.stage_table import STAGES
from desmatch.stages import Run, steps
from desmatch.tasks.plan import num_at_once, plan


@pytest.fixture
def run(sample_folder, tiny_recipe, tmp_path):
    validation = dataclasses.replace(tiny_recipe.validation, folds="all")
    recipe = dataclasses.replace(tiny_recipe, validation=validation)
    return Run(tmp_path / "run", recipe, find_sources(sample_folder))


def needs(run):
    """Each task's name to the names of those that it needs."""
    tasks = plan(run)
    names = [task.name(run.folder) for task in tasks]
    return {name: {names[each] for each in task.needs}
            for name, task in zip(names, tasks, strict=True)}  # fmt: skip


def with_mlm(run):
    mlm = dataclasses.replace(run.recipe.mlm, num_train_epochs=1.0)
    return dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, mlm=mlm))


def test_folds_wait_for_what_they_share_and_not_for_one_another(run):
    found = needs(with_mlm(run))
    assert found["mlm"] == {"prepare"}
    for fold in range(3):
        assert found[f"fold-{fold}/pretrain"] == {"prepare", "mlm"}
        assert found[f"fold-{fold}/finetune"] == {"prepare", "mlm", f"fold-{fold}/pretrain"}
    assert found["predict"] == {"prepare"} | {
        f"fold-{fold}/{stage}" for fold in range(3) for stage in ("pretrain", "finetune")
    }
    assert found["report"] == {"prepare", "predict", "evaluate", "submit"}


def test_tasks_are_the_steps_of_a_run_in_their_order(run):
    tasks = plan(run)
    assert [(task.run.folder, task.run.recipe, task.stage) for task in tasks] == [
        (part.folder, part.recipe, stage) for part, stage in steps(run)
    ]
    for number, task in enumerate(tasks):
        assert all(each < number for each in task.needs)


def test_a_member_waits_for_the_one_whose_stages_it_takes_over(run):
    members = {"first": {}, "second": {"finetune": {"learning_rate": 0.001}}, "third": {"seed": 1}}
    recipe = dataclasses.replace(run.recipe, members=members)
    found = needs(dataclasses.replace(run, recipe=recipe))
    of = "members/{}/fold-0/{}".format
    assert of("first", "pretrain") in found[of("second", "pretrain")]
    assert of("first", "finetune") not in found[of("second", "finetune")]
    assert not any("first" in each for each in found[of("third", "pretrain")])
    assert {f"members/{name}/predict" for name in members} <= found["predict"]
    assert found["members/second/prepare"] == {"members/first/prepare"}


def test_as_many_are_done_at_once_as_there_are_folds(run):
    assert num_at_once(plan(run)) == 3
    assert num_at_once(plan(run)[:1]) == 1


def test_names_of_tasks_are_their_places_in_the_run(run):
    counts = Counter(Path(name).name for name in needs(run))
    wanted = {stage.name for stage in STAGES if stage.is_wanted(run.recipe)}
    assert set(counts) == wanted
    assert counts["finetune"] == 3
