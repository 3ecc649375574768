"""The stages of the main job: what each reads, writes and depends on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from desmatch.recipe import Recipe


class Stage(NamedTuple):
    """One step of the main job.

    Attributes:
        name: The verb of the command line.
        reads: What earlier stages wrote.
        writes: A file or folder inside the run's folder.
        options: The parts and values of the recipe that it uses; with `reads` they decide whether
            an artefact that is there still holds.
        is_parallel: Whether it trains a model, all processes together; otherwise the first one
            works alone.
        is_per_fold: Whether it is done once for each fold that is trained, in the fold's folder.
        reads_members: Whether an ensemble's stage reads what its members' stage wrote.
        reads_teacher: Whether it reads the last models of the run's teacher.
        is_label_free: Whether it asks for no label and no fold, so that it still holds when the
            rows are split in another way.
        is_wanted: Whether a recipe has this stage at all.
    """

    name: str
    reads: tuple[str, ...]
    writes: str
    options: tuple[str, ...]
    is_parallel: bool = False
    is_per_fold: bool = False
    reads_members: bool = False
    reads_teacher: bool = False
    is_label_free: bool = False
    is_wanted: Callable[[Recipe], bool] = lambda _: True


def _trains(recipe: Recipe) -> bool:
    return not recipe.members


def _has_mlm(recipe: Recipe) -> bool:
    return _trains(recipe) and recipe.mlm.num_train_epochs > 0


def _has_teacher(recipe: Recipe) -> bool:
    return _trains(recipe) and recipe.distill.teacher is not None


def _has_joint(recipe: Recipe) -> bool:
    return _trains(recipe) and recipe.pretrain.num_train_epochs > 0


def _has_finetune(recipe: Recipe) -> bool:
    return _trains(recipe) and recipe.finetune.num_train_epochs > 0


def _has_pseudo_labels(recipe: Recipe) -> bool:
    return _trains(recipe) and recipe.pseudo_labels.rounds > 0


STAGES = (
    Stage("prepare", (), "prepared",
          ("seed", "data", "validation.num_folds", "validation.random_share",
           "validation.split_seed")),
    Stage("mlm", ("prepared",), "mlm", ("seed", "model", "mlm", "machine"),
          is_parallel=True, is_label_free=True, is_wanted=_has_mlm),
    Stage("distill", ("prepared",), "soft-labels", ("distill.weight", "validation.fold"),
          is_per_fold=True, reads_teacher=True, is_wanted=_has_teacher),
    Stage("pretrain", ("prepared", "mlm", "soft-labels"), "pretrained",
          ("seed", "model", "pretrain", "machine", "validation.fold"),
          is_parallel=True, is_per_fold=True, is_wanted=_has_joint),
    Stage("finetune", ("prepared", "mlm", "soft-labels", "pretrained"), "finetuned",
          ("seed", "model", "finetune", "machine", "validation.fold"),
          is_parallel=True, is_per_fold=True, is_wanted=_has_finetune),
    Stage("pseudo-label", ("prepared", "pretrained", "finetuned"), "pseudo-labeled",
          ("seed", "pseudo_labels", "finetune", "machine", "validation.fold"),
          is_parallel=True, is_per_fold=True, is_wanted=_has_pseudo_labels),
    Stage("predict", ("prepared", "pretrained", "finetuned", "pseudo-labeled"), "predictions",
          ("seed", "machine", "predict", "ensemble"), reads_members=True),
    Stage("evaluate", ("prepared", "predictions"), "metrics", ("seed", "validation")),
    Stage("submit", ("prepared", "predictions", "metrics"), "submission", ("seed",)),
    Stage("report", ("prepared", "predictions", "metrics", "submission"), "report.html", ()),
)  # fmt: skip
"""The stages in order; a stage reads only what an earlier one wrote."""


def stage_that_writes(written: str) -> Stage:
    """Return the stage that makes a file or folder of a run."""
    return next(stage for stage in STAGES if stage.writes == written)
