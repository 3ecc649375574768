"""Labels that the model itself is sure of. Shapes: U unlabelled rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from desmatch.data.vocabulary import joined
from desmatch.model.batch import UNLABELED, TrainingRows
from desmatch.model.checkpoints import load_model
from desmatch.model.scoring import score_pairs
from desmatch.prepare import Prepared, touches_fold
from desmatch.runs import StageFolder, seed_everything
from desmatch.train.augment import closed_rows
from desmatch.train.finetune import finetune
from desmatch.train.machine import set_threads
from desmatch.train.pretrain import (
    joint_labels,
    joint_rows,
    joint_training,
    stage_batches,
)
from desmatch.train.trainer import LABELS, finish_stage
from desmatch.train.validation import validation_rows

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from desmatch.model.heads import MatchForPairs
    from desmatch.recipe import Recipe


TAUGHT = ("test", "unlabeled")
"""The roles whose rows get the model's labels."""


def choose_pseudo_labels(
    scores: NDArray[np.float64],
    *,
    share: float,
    positive_share: float,
    allowed: NDArray[np.bool_],
    confidence: float = 0.5,
) -> NDArray[np.int8]:
    """Label the surest rows of each class, in the ratio of the classes.

    The highest scores become 1 and the lowest become 0; a row is never both.

    Args:
        scores: (U,), the model's probability of label 1.
        share: Share of the allowed rows that gets a label, at most.
        positive_share: Share of label 1 among the labelled training rows.
        confidence: Above 0.5, no row is labelled whose label is less probable than this; where
            that leaves too few of one class, the other gets fewer too.
        allowed: (U,), False for rows that must stay without a label, such as those that touch a
            query of the validation rows.

    Returns:
        (U,), 0, 1 or UNLABELED.
    """
    labels = np.full(len(scores), UNLABELED, np.int8)
    candidates = np.flatnonzero(allowed)
    order = candidates[np.argsort(scores[candidates], kind="stable")]
    num_labelled = round(share * len(order))
    if confidence > 0.5:
        sure_positives = int((scores[order] >= confidence).sum())
        sure_negatives = int((scores[order] <= 1 - confidence).sum())
        num_labelled = min(
            num_labelled,
            int(sure_positives / max(positive_share, 1e-9)),
            int(sure_negatives / max(1 - positive_share, 1e-9)),
        )
    num_positive = round(positive_share * num_labelled)
    labels[order[: num_labelled - num_positive]] = 0
    labels[order[len(order) - num_positive :]] = 1
    return labels


def pseudo_label(
    prepared: Prepared, recipe: Recipe, start: Path, stage: StageFolder, *, fold: int
) -> None:
    """Go on from the model in `start` for the recipe's rounds.

    A round scores all rows without labels, takes the surest scores for labels, trains jointly
    with them as label tokens and then on the gold labels, alone or with these. Rows that share a
    text with `fold`, the held-out one, get no label.
    """
    for number in range(1, recipe.pseudo_labels.rounds + 1):
        joint = stage.part(f"{number}-joint")
        is_last = number == recipe.pseudo_labels.rounds
        labelled = stage if is_last else stage.part(str(number))
        if not joint.is_finished:
            _joint_round(prepared, recipe, start, joint, fold=fold)
        if not labelled.is_finished:
            beside = _labelled_rows(prepared, joint) if recipe.pseudo_labels.in_finetune else None
            finetune(prepared, recipe, joint.path, labelled, fold=fold, beside=beside)
        start = labelled.path


def _joint_round(
    prepared: Prepared, recipe: Recipe, start: Path, stage: StageFolder, *, fold: int
) -> None:
    seed_everything(recipe.seed)
    model = load_model(start)
    set_threads(recipe.machine)
    labels, figures = _round_labels(model, prepared, recipe, fold=fold)
    closed = closed_rows(prepared, recipe, fold=fold)
    rows = joint_rows(prepared, labels).joined(closed)
    config = recipe.pseudo_labels.training
    batches = stage_batches(prepared, recipe, config, rows, stage=stage.path.name)
    joint_training(model, batches, validation_rows(prepared, fold), recipe=recipe, stage=stage)
    taught = {role: labels[role] for role in TAUGHT}
    finish_stage(model, prepared, stage, figures=figures, labels=taught)


def _labelled_rows(prepared: Prepared, joint: StageFolder) -> TrainingRows:
    """Return the rows that a round labelled."""
    with np.load(joint.path / LABELS) as kept:
        labels = np.concatenate([kept[role] for role in TAUGHT])
    rows = TrainingRows(joined([prepared.encode(role) for role in TAUGHT]), labels)
    return rows.take(np.flatnonzero(labels != UNLABELED))


def _round_labels(
    model: MatchForPairs, prepared: Prepared, recipe: Recipe, *, fold: int
) -> tuple[dict[str, NDArray[Any]], dict[str, int]]:
    labels: dict[str, NDArray[Any]] = {**joint_labels(prepared, fold)}
    positive_share = float((labels["train"] == 1).sum() / (labels["train"] != UNLABELED).sum())
    config = recipe.pseudo_labels
    counts = {"pseudo_positives": 0, "pseudo_negatives": 0}
    for role in TAUGHT:
        scores = score_pairs(model, prepared.encode(role), progress=f"labelling {role}").scores
        chosen = choose_pseudo_labels(
            scores,
            share=config.share,
            positive_share=positive_share,
            allowed=~touches_fold(prepared, role, fold),
            confidence=config.confidence,
        )
        counts["pseudo_positives"] += int((chosen == 1).sum())
        counts["pseudo_negatives"] += int((chosen == 0).sum())
        is_soft = (chosen != UNLABELED) & (config.kind == "soft")
        labels[role] = np.where(is_soft, scores, chosen).astype(np.float32)
    return labels, counts
