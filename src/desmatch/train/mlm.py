"""Masked tokens of all rows, without a label: one training for all folds, as nothing is held out.

The winners' largest single gain was to train long in this way before any label is seen (GAIIC 2021
track 3; domain-adaptive pretraining, arXiv 2004.10964).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from desmatch.intake import ROLES
from desmatch.model.batch import UNLABELED, TrainingBatches
from desmatch.train.pretrain import (
    joint_rows,
    joint_training,
    stage_batches,
    starting_model,
    vocabulary_sizes,
)
from desmatch.train.trainer import finish_stage
from desmatch.train.validation import MaskedRows

if TYPE_CHECKING:
    from desmatch.model.batch import TrainingRows
    from desmatch.prepare import Prepared
    from desmatch.recipe import Recipe
    from desmatch.runs import StageFolder

NUM_BATCHES = 16
"""Batches whose loss is told at each evaluation."""


def train_mlm(prepared: Prepared, recipe: Recipe, stage: StageFolder) -> None:
    """Train on the tokens of all rows of all files, and write the finished model."""
    model, figures = starting_model(prepared, recipe)
    labels = {role: np.full(len(prepared.rows[role]), UNLABELED, np.int8) for role in ROLES}
    rows = joint_rows(prepared, labels)
    batches = stage_batches(prepared, recipe, recipe.mlm, rows, stage=stage.path.name)
    validation = masked_rows(prepared, recipe, rows)
    joint_training(model, batches, validation, recipe=recipe, stage=stage)
    finish_stage(model, prepared, stage, figures=figures)


def masked_rows(prepared: Prepared, recipe: Recipe, rows: TrainingRows) -> MaskedRows:
    """Return rows under BERT's noise, whatever the stage's own: so losses can be compared."""
    config = replace(recipe.mlm, mlm_probability=0.15, mask_unit="token", objective="mlm")
    sizes = vocabulary_sizes(prepared)
    batches = TrainingBatches(rows, config, sizes, seed=recipe.seed, stage="masked validation rows")
    return MaskedRows([batches[k] for k in range(min(NUM_BATCHES, batches.steps_per_epoch))])
