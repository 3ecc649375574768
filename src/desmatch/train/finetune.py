"""The last stage: labelled rows alone, [YES] against [NO]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from desmatch.model.batch import UNLABELED
from desmatch.model.losses import label_loss
from desmatch.train.augment import closed_rows
from desmatch.train.pretrain import begin, joint_labels, joint_rows, stage_batches, take_prior
from desmatch.train.trainer import finish_stage, train_stage
from desmatch.train.validation import validation_rows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from desmatch.model.batch import TrainingRows
    from desmatch.model.heads import MatchForPairs, PairOutput
    from desmatch.prepare import Prepared
    from desmatch.recipe import Recipe
    from desmatch.runs import StageFolder
    from desmatch.train.trainer import Objective


def finetune(
    prepared: Prepared,
    recipe: Recipe,
    start: Path | None,
    stage: StageFolder,
    *,
    fold: int,
    labels: Mapping[str, NDArray[Any]] | None = None,
) -> None:
    """Train the model in `start` on labelled rows outside `fold`.

    Args:
        prepared: The data.
        recipe: Its seed, `finetune` and machine are used.
        start: Folder of a model; none: the recipe's own start.
        stage: To write.
        fold: That is held out.
        labels: Of all roles, UNLABELED or not; none: those of the training data.
    """
    model, figures = begin(prepared, recipe, start)
    take_prior(model, prepared, fold)
    all_rows = joint_rows(prepared, labels or joint_labels(prepared, fold))
    rows = all_rows.take(np.flatnonzero(all_rows.labels != UNLABELED))
    rows = rows.joined(closed_rows(prepared, recipe, fold=fold))
    label_training(model, rows, prepared, recipe, stage, fold=fold)
    finish_stage(model, prepared, stage, figures=figures)


def label_training(
    model: MatchForPairs,
    rows: TrainingRows,
    prepared: Prepared,
    recipe: Recipe,
    stage: StageFolder,
    *,
    fold: int,
) -> None:
    """Train `model` in place on labelled rows outside `fold`."""
    train_stage(
        model,
        stage_batches(prepared, recipe, recipe.finetune, rows, stage=stage.path.name),
        label_objective(model, recipe.finetune.label_smoothing),
        validation_rows(prepared, fold),
        recipe=recipe,
        stage=stage,
    )


def label_objective(model: MatchForPairs, smoothing: float = 0.0) -> Objective:
    """Return the objective of the last stage; masked tokens, if any, are noise, not targets."""

    def objective(output: PairOutput, batch: dict[str, Tensor]) -> Tensor:
        loss = label_loss(
            output.pair_logits,
            batch["pair_labels"],
            first_label_column=model.first_label_column,
            smoothing=smoothing,
        )
        return loss * batch["pair_weight"]

    return objective
