"""The joint stage: masked tokens of all rows and label tokens of labelled rows, one loss.

Source: kexue.fm/archives/8213. Shapes: B labelled pairs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from desmatch.data.vocabulary import PairParts
from desmatch.ensemble.naive_bayes import prior_logit
from desmatch.intake import ROLES
from desmatch.model.batch import UNLABELED, TrainingBatches, TrainingRows, Vocabularies
from desmatch.model.checkpoints import build_model, load_aligned, load_model
from desmatch.model.losses import joint_loss
from desmatch.model.naive_bayes import NaiveBayesHead
from desmatch.prepare import Prepared, training_mask
from desmatch.runs import StageFolder, generator, seed_everything
from desmatch.train.augment import closed_rows
from desmatch.train.processes import num_processes
from desmatch.train.trainer import LABELS, Objective, finish_stage, train_stage
from desmatch.train.validation import validation_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from desmatch.model.heads import MatchForPairs, PairOutput
    from desmatch.recipe import Recipe
    from desmatch.recipe_training import TrainingConfig
    from desmatch.train.trainer import Validation


def starting_model(prepared: Prepared, recipe: Recipe) -> tuple[MatchForPairs, dict[str, Any]]:
    """Return the model that training begins with, and the card's figures of its start."""
    seed_everything(recipe.seed)
    vocabulary = prepared.vocabulary
    if recipe.model.init is None:
        model = build_model(
            recipe.model,
            vocab_size=vocabulary.size,
            max_length=recipe.data.max_length,
            pretraining=recipe.pretrain,
        )
        return model, {"init": None}
    rng = generator(recipe.seed, "align")
    aligned = load_aligned(recipe.model, vocabulary, rng=rng, pretraining=recipe.pretrain)
    figures = {
        "init": Path(recipe.model.init).name,
        "aligned_ids": aligned.num_aligned,
        "drawn_rows": aligned.num_drawn,
        "has_mlm_head": aligned.has_mlm_head,
    }
    return aligned.model, figures


def begin(
    prepared: Prepared, recipe: Recipe, start: Path | None
) -> tuple[MatchForPairs, dict[str, Any]]:
    """Return the model of the folder `start`, or the recipe's own with the figures of its start."""
    if start is None:
        return starting_model(prepared, recipe)
    seed_everything(recipe.seed)
    return load_model(start), {}


def pretrain(
    prepared: Prepared,
    recipe: Recipe,
    stage: StageFolder,
    *,
    fold: int,
    start: Path | None = None,
    labels: Mapping[str, NDArray[Any]] | None = None,
) -> None:
    """Train on all rows of all files, on labels outside `fold`, and write the finished model.

    Args:
        prepared: The data.
        recipe: All but what later stages need is used.
        stage: To write.
        fold: That is held out.
        start: Folder of the model of an earlier stage; none: the recipe's own start.
        labels: Of all roles, UNLABELED or not; none: those of the training data.
    """
    model, figures = begin(prepared, recipe, start)
    closed = closed_rows(prepared, recipe, fold=fold)
    take_prior(model, prepared, fold)
    rows = joint_rows(prepared, labels or joint_labels(prepared, fold)).joined(closed)
    batches = stage_batches(prepared, recipe, recipe.pretrain, rows, stage=stage.path.name)
    joint_training(model, batches, validation_rows(prepared, fold), recipe=recipe, stage=stage)
    finish_stage(model, prepared, stage, figures={**figures, "closed_pairs": len(closed.labels)})


def take_prior(model: MatchForPairs, prepared: Prepared, fold: int) -> None:
    """Tell a head that asks for it how many of the labels outside `fold` are 1."""
    if isinstance(model.pair_head, NaiveBayesHead):
        labels = prepared.train_column("label")[training_mask(prepared, fold)]
        model.pair_head.prior.fill_(prior_logit(labels))


def joint_labels(prepared: Prepared, fold: int) -> dict[str, NDArray[np.int8]]:
    """Return the labels of all roles: those that train while `fold` is held out, else UNLABELED."""
    labels = {role: np.full(len(prepared.rows[role]), UNLABELED, np.int8) for role in ROLES}
    may_train = training_mask(prepared, fold)
    labels["train"][may_train] = prepared.train_column("label")[may_train]
    return labels


def read_labels(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Read the labels of roles that a stage gave: 0 to 1, or UNLABELED."""
    with np.load(folder / LABELS) as kept:
        return dict(kept)


def joint_rows(prepared: Prepared, labels: Mapping[str, NDArray[Any]]) -> TrainingRows:
    """Return the rows of all roles, one role after the other, with their labels."""
    return TrainingRows(
        PairParts(tuple(prepared.encode(role) for role in ROLES)),
        np.concatenate([labels[role] for role in ROLES]),
    )


def stage_batches(
    prepared: Prepared, recipe: Recipe, config: TrainingConfig, rows: TrainingRows, *, stage: str
) -> TrainingBatches:
    """Return the batches of a stage by its name, each shared by all processes."""
    return TrainingBatches(
        rows,
        config,
        vocabulary_sizes(prepared),
        seed=recipe.seed,
        stage=stage,
        num_shares=num_processes(),
    )


def vocabulary_sizes(prepared: Prepared) -> Vocabularies:
    """Return what noise needs to know of the vocabulary."""
    return Vocabularies(prepared.vocabulary.first_id, prepared.vocabulary.size)


def joint_training(
    model: MatchForPairs,
    batches: TrainingBatches,
    validation: Validation,
    *,
    recipe: Recipe,
    stage: StageFolder,
) -> None:
    """Train `model` in place with the joint objective."""
    objective = joint_objective(model, batches.config.label_weight)
    train_stage(model, batches, objective, validation, recipe=recipe, stage=stage)


def joint_objective(model: MatchForPairs, label_weight: float) -> Objective:
    """Return the objective of the joint stage."""

    def objective(output: PairOutput, batch: dict[str, Tensor]) -> Tensor:
        loss = joint_loss(
            output.logits,
            batch["masked_labels"],
            output.pair_logits,
            batch["pair_labels"],
            first_label_column=model.first_label_column,
            label_weight=label_weight,
        )
        return loss * batch["joint_weight"]

    return objective
