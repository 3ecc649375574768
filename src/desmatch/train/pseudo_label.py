"""Labels that the model itself is sure of. Shapes: U unlabelled rows, B held-out rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from desmatch.metrics.roc import roc_auc
from desmatch.model.batch import UNLABELED
from desmatch.model.checkpoints import load_model
from desmatch.model.scoring import score_pairs
from desmatch.prepare import FIGURES, Prepared, touches_fold
from desmatch.runs import (
    STAGE,
    StageFolder,
    link_file,
    read_json,
    seed_everything,
    write_json,
)
from desmatch.train.augment import closed_rows
from desmatch.train.finetune import finetune
from desmatch.train.machine import use_machine
from desmatch.train.pretrain import (
    joint_labels,
    joint_rows,
    joint_training,
    read_labels,
    stage_batches,
)
from desmatch.train.processes import is_main_process, wait_for_everyone
from desmatch.train.trainer import HISTORY, LABELS, finish_stage
from desmatch.train.validation import EVALUATIONS, read_evaluations, validation_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

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


class Round(NamedTuple):
    """A model, before the first or after one of the rounds.

    Attributes:
        number: Of the round; 0: the model that the first one starts from.
        folder: Where the model lies.
        figures: Its AUC on the held-out rows, and what a round labelled.
        candidates: File name to the logits, (2, B), of every checkpoint that it is the best of.
    """

    number: int
    folder: Path
    figures: dict[str, Any]
    candidates: dict[str, NDArray[np.float64]]

    @property
    def roc_auc(self) -> float:
        """AUC of the held-out rows."""
        return float(self.figures["roc_auc"])


def pseudo_label(
    prepared: Prepared, recipe: Recipe, start: Path, stage: StageFolder, *, fold: int
) -> None:
    """Go on from the model in `start` for the recipe's rounds, and keep the best or the last model.

    A round scores all rows without labels, takes the surest scores for labels, trains jointly
    with them as label tokens and then on the gold labels, alone or with these. Rows that share a
    text with `fold`, the held-out one, get no label. With `stop` the first round whose AUC on the
    held-out rows is not above that of the model it started from is dropped, and the rounds end.

    The stage's evaluations are those of all models that the kept one was chosen among, for
    `desmatch.predict.honest_scores`.
    """
    rounds = [_assess(0, start, prepared, recipe, fold=fold)]
    kept = rounds[0]
    for number in range(1, recipe.pseudo_labels.rounds + 1):
        folder = _train_round(prepared, recipe, kept.folder, stage.part(str(number)), fold=fold)
        rounds.append(_assess(number, folder, prepared, recipe, fold=fold))
        if recipe.pseudo_labels.stop and rounds[-1].roc_auc <= kept.roc_auc:
            break
        kept = rounds[-1]
    if is_main_process():
        _finish(stage, rounds, kept, chosen_among=rounds if recipe.pseudo_labels.stop else [kept])
    wait_for_everyone()


def _train_round(
    prepared: Prepared, recipe: Recipe, start: Path, stage: StageFolder, *, fold: int
) -> Path:
    """Do one round, or what is missing of it; return the folder of its model."""
    joint = stage.part("joint")
    if not joint.is_finished:
        _joint_round(prepared, recipe, start, joint, fold=fold)
    if not recipe.finetune.num_train_epochs:
        return joint.path
    if not stage.is_finished:
        labels: dict[str, NDArray[Any]] | None = None
        if recipe.pseudo_labels.in_finetune:
            labels = {**joint_labels(prepared, fold), **read_labels(joint.path)}
        finetune(prepared, recipe, joint.path, stage, fold=fold, labels=labels)
    return stage.path


def _assess(number: int, folder: Path, prepared: Prepared, recipe: Recipe, *, fold: int) -> Round:
    """Measure a round's model on the held-out rows."""
    validation = validation_rows(prepared, fold)
    use_machine(recipe.machine)
    logits = score_pairs(load_model(folder), validation.pairs)
    figures: dict[str, Any] = {"round": number}
    if number:
        joint = folder if folder.name.endswith("-joint") else Path(f"{folder}-joint")
        figures |= read_json(joint / FIGURES)
    figures["roc_auc"] = roc_auc(validation.labels, logits.scores)
    training = recipe.last_training
    if number and not recipe.finetune.num_train_epochs:
        training = recipe.pseudo_labels.training
    kept = read_evaluations(folder) if training.keep == "best" else [logits]
    names = (f"round-{number:03d}-{index:03d}.npy" for index in range(len(kept)))
    return Round(number, folder, figures, dict(zip(names, map(np.stack, kept), strict=True)))


def _finish(
    stage: StageFolder, rounds: Sequence[Round], kept: Round, *, chosen_among: Sequence[Round]
) -> None:
    """Write the kept model, the history of the last round, and what was chosen among."""
    own = shutil.ignore_patterns(STAGE, EVALUATIONS, FIGURES, HISTORY, LABELS)
    with stage.finish() as folder:
        shutil.copytree(
            kept.folder, folder, ignore=own, copy_function=link_file, dirs_exist_ok=True
        )
        shutil.copy(rounds[-1].folder / HISTORY, folder)
        (folder / EVALUATIONS).mkdir()
        for each in chosen_among:
            for name, logits in each.candidates.items():
                np.save(folder / EVALUATIONS / name, logits)
        lines = [{**each.figures, "is_kept": each is kept} for each in rounds]
        write_json(folder / FIGURES, {"rounds": lines})


def _joint_round(
    prepared: Prepared, recipe: Recipe, start: Path, stage: StageFolder, *, fold: int
) -> None:
    seed_everything(recipe.seed)
    model = load_model(start)
    use_machine(recipe.machine)
    labels, figures = _round_labels(model, prepared, recipe, fold=fold)
    closed = closed_rows(prepared, recipe, fold=fold)
    rows = joint_rows(prepared, labels).joined(closed)
    config = recipe.pseudo_labels.training
    batches = stage_batches(prepared, recipe, config, rows, stage=stage.path.name)
    joint_training(model, batches, validation_rows(prepared, fold), recipe=recipe, stage=stage)
    taught = {role: labels[role] for role in TAUGHT}
    finish_stage(model, prepared, stage, figures=figures, labels=taught)


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
