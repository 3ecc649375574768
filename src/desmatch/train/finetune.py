"""The last stage: labelled rows alone, [YES] against [NO]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from desmatch.model.batch import TrainingBatches, TrainingRows, Vocabularies
from desmatch.model.losses import label_loss
from desmatch.model.masked_lm import load_model
from desmatch.prepare import Prepared, training_mask
from desmatch.runs import StageFolder, seed_everything
from desmatch.train.trainer import finish_stage, train_stage, validation_rows

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from transformers import PreTrainedModel

    from desmatch.recipe import Recipe


def finetune(prepared: Prepared, recipe: Recipe, start: Path, stage: StageFolder) -> None:
    """Train the model in `start` on labelled rows outside the held-out fold."""
    seed_everything(recipe.seed)
    model = load_model(start)
    label_training(model, prepared, recipe, stage)
    finish_stage(model, prepared, stage)


def label_training(
    model: PreTrainedModel, prepared: Prepared, recipe: Recipe, stage: StageFolder
) -> None:
    """Train `model` in place on the labelled rows outside the held-out fold."""
    may_train = np.flatnonzero(training_mask(prepared, recipe.validation.fold))
    rows = TrainingRows(
        prepared.encode("train").take(may_train), prepared.train_column("label")[may_train]
    )
    vocabulary = Vocabularies(prepared.vocabulary.first_id, prepared.vocabulary.size)
    batches = TrainingBatches(
        rows, recipe.finetune, vocabulary, seed=recipe.seed, stage=stage.path.name
    )
    train_stage(
        model,
        batches,
        label_objective,
        validation_rows(prepared, recipe.validation.fold),
        machine=recipe.machine,
        stage=stage,
    )


def label_objective(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Objective of the fine-tuning stage; masked tokens, if any, are context and not targets."""
    return label_loss(logits[len(batch["masked_labels"]) :], batch["pair_labels"])
