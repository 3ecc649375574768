"""A short training for an experiment, and the loss on masked tokens of rows held out for it.

Rows, batches, objectives, optimisers and schedules are the project's own. Shapes: E evaluations.
"""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from desmatch.data.vocabulary import joined
from desmatch.intake import ROLES, find_sources
from desmatch.model.batch import UNLABELED, TrainingBatches, TrainingRows, Vocabularies
from desmatch.model.dropout import use_bank_dropout
from desmatch.model.heads import model_inputs
from desmatch.prepare import Prepared, prepare, touches_fold, training_mask
from desmatch.train.machine import keep_freed_memory
from desmatch.train.optimizers import build_optimizer, build_scheduler, state_elements
from desmatch.train.trainer import warmup_ratio
from desmatch.train.validation import ValidationRows

if TYPE_CHECKING:
    from torch import Tensor

    from desmatch.data.vocabulary import Vocabulary
    from desmatch.model.heads import MatchForPairs, PairOutput
    from desmatch.recipe import Recipe
    from desmatch.recipe_training import TrainingConfig
    from desmatch.train.trainer import Objective

Batch = dict[str, "Tensor"]


class Task(NamedTuple):
    """The rows of a folder of contest files, one fold of the labelled ones held out.

    Attributes:
        vocabulary: Fitted on all files.
        rows: Of all files; labelled where the files say so, and none with a text of the fold.
        held_out: The fold.
    """

    vocabulary: Vocabulary
    rows: TrainingRows
    held_out: ValidationRows

    def batches(self, config: TrainingConfig, *, seed: int, has_labels: bool) -> TrainingBatches:
        """Return the training's batches, with their labels or with masked tokens alone."""
        rows = self.rows if has_labels else _without_labels(self.rows)
        return self._batches(rows, config, seed, "experiment")

    def masked_batches(self, config: TrainingConfig, *, max_rows: int) -> list[Batch]:
        """Return batches of the first held-out rows, masked in one way for every experiment."""
        pairs, labels = self.held_out
        kept = np.arange(min(max_rows, len(labels)))
        rows = _without_labels(TrainingRows(pairs.take(kept), labels[kept]))
        batches = self._batches(rows, config, 0, "held out")
        return [batches[k] for k in range(batches.steps_per_epoch)]

    def _batches(
        self, rows: TrainingRows, config: TrainingConfig, seed: int, stage: str
    ) -> TrainingBatches:
        sizes = Vocabularies(self.vocabulary.first_id, self.vocabulary.size)
        return TrainingBatches(rows, config, sizes, seed=seed, stage=stage)


def _without_labels(rows: TrainingRows) -> TrainingRows:
    return rows._replace(labels=np.full_like(rows.labels, UNLABELED))


def read_task(data: Path, recipe: Recipe) -> Task:
    """Prepare a folder's files as a run of the recipe does, and encode their rows."""
    fold = recipe.validation.fold
    with tempfile.TemporaryDirectory() as folder:
        prepare(find_sources(data), recipe, Path(folder))
        prepared = Prepared.load(Path(folder))
        kept = {role: np.flatnonzero(~touches_fold(prepared, role, fold)) for role in ROLES}
        kept["train"] = np.flatnonzero(training_mask(prepared, fold))
        pairs = joined([prepared.encode(role).take(kept[role]) for role in ROLES])
        labels = np.full(pairs.num_pairs, UNLABELED, np.int8)
        given = prepared.train_column("label")
        labels[: len(kept["train"])] = given[kept["train"]]  # the first of the roles
        in_fold = np.flatnonzero(prepared.train_column("fold") == fold)
        held_out = ValidationRows(prepared.encode("train").take(in_fold), given[in_fold])
    return Task(prepared.vocabulary, TrainingRows(pairs, labels), held_out)


class Curve(NamedTuple):
    """A training, seen from held-out rows.

    Attributes:
        steps: (E,), steps before each evaluation.
        losses: (E,), mean loss of the held-out masked tokens, in nats; infinite, not NaN.
        seconds_per_step: Processor time of the training alone.
        state_per_parameter: Numbers that the optimiser keeps, over those that it trains.
    """

    steps: list[int]
    losses: list[float]
    seconds_per_step: float
    state_per_parameter: float

    @property
    def best(self) -> float:
        """The lowest loss."""
        return min(self.losses)

    def steps_to(self, loss: float) -> int | None:
        """Return the steps to the first evaluation that is no worse than `loss`, or none."""
        reached = (step for step, each in zip(*self[:2], strict=True) if each <= loss)
        return next(reached, None)

    def share_of_steps(self, reference: Curve) -> float | None:
        """Return the steps to the reference's best loss as a share of its own, or none: never."""
        needed, own = (each.steps_to(reference.best) for each in (self, reference))
        return None if needed is None or own is None else needed / own


def shares_or_never(shares: list[float | None]) -> list[float]:
    """Return the shares of several seeds, or one infinity where any of them never came there."""
    known = [each for each in shares if each is not None]
    return known if len(known) == len(shares) else [math.inf]


def train(
    model: MatchForPairs,
    batches: TrainingBatches,
    objective: Objective,
    *,
    num_steps: int,
    held_out: list[Batch],
    steps_per_evaluation: int,
) -> Curve:
    """Train `model` in place by its batches' config, and evaluate it on the way and at the end."""
    keep_freed_memory()
    use_bank_dropout(model)
    config = batches.config
    optimizer = build_optimizer(model, config)
    warmup_steps = round(warmup_ratio(config, model.config.norm) * num_steps)
    scheduler = build_scheduler(optimizer, config, num_steps=num_steps, warmup_steps=warmup_steps)
    steps, losses, seconds = [], [], 0.0
    model.train()
    for step in range(1, num_steps + 1):
        started = time.process_time()
        batch = batches[step - 1]
        loss = objective(model(**model_inputs(batch)), batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        scheduler.step()
        seconds += time.process_time() - started
        if step % steps_per_evaluation == 0 or step == num_steps:
            steps.append(step)
            losses.append(masked_loss(model, held_out))
    num_parameters = sum(each.numel() for each in model.parameters() if each.requires_grad)
    return Curve(steps, losses, seconds / num_steps, state_elements(optimizer) / num_parameters)


def masked_objective(output: PairOutput, batch: Batch) -> Tensor:
    """Return the mean loss of a batch's masked tokens alone."""
    return F.cross_entropy(output.logits, batch["masked_labels"])


def masked_loss(model: MatchForPairs, batches: list[Batch]) -> float:
    """Return the mean loss of all masked tokens, dropout off; a model that diverged has infinity.

    The model's training mode is left as it was.
    """
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for batch in batches:
            output = model(**model_inputs(batch))
            labels = batch["masked_labels"]
            total += float(F.cross_entropy(output.logits, labels, reduction="sum"))
            count += len(labels)
    model.train(was_training)
    return total / count if math.isfinite(total) else math.inf
