"""One training stage on transformers' Trainer: progress, validation, checkpoints, resume.

Shapes: B validation rows.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from desmatch.disk import disk_errors
from desmatch.errors import UserError
from desmatch.model.dropout import use_bank_dropout
from desmatch.model.heads import model_inputs
from desmatch.model.losses import label_logits, symmetric_divergence
from desmatch.prepare import FIGURES, Prepared
from desmatch.runs import StageFolder, atomic_write, write_json
from desmatch.train.adversarial import build_attack
from desmatch.train.averaging import WeightAverage
from desmatch.train.checkpoints import CheckpointSeal, sound_checkpoint, step_of
from desmatch.train.machine import keep_freed_memory, loader_workers, use_machine, uses_bf16
from desmatch.train.optimizers import build_optimizer, build_scheduler
from desmatch.train.processes import is_main_process, wait_for_everyone
from desmatch.train.progress import ProgressBar
from desmatch.train.tracking import add_tensorboard, end_tracking
from desmatch.train.validation import EVALUATIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from transformers import TrainerState

    from desmatch.model.batch import TrainingBatches
    from desmatch.model.heads import MatchForPairs, PairOutput
    from desmatch.recipe import Recipe
    from desmatch.recipe_training import TrainingConfig
    from desmatch.train.validation import Evaluation

Objective = Callable[["PairOutput", dict[str, Tensor]], Tensor]
"""What a model says of a batch, and the batch, to a loss."""

LABELS = "labels.npz"
HISTORY = "history.json"
LOGS_PER_EVALUATION = 10

UNREADABLE = (OSError, ValueError, RuntimeError, EOFError, UnpicklingError, SafetensorError)
"""What the libraries raise on a truncated or foreign checkpoint."""


class Validation(Protocol):
    """What a stage is judged by."""

    def evaluate(self, model: MatchForPairs, *, in_bf16: bool) -> Evaluation:
        """Judge a model, dropout off."""


class StageTrainer(Trainer):  # type: ignore[misc]
    """Trainer whose dataset gives whole batches in order and whose evaluation is the AUC."""

    def __init__(
        self,
        model: MatchForPairs,
        args: TrainingArguments,
        *,
        batches: TrainingBatches,
        objective: Objective,
        validation: Validation,
    ) -> None:
        super().__init__(
            model,
            args,
            train_dataset=batches,
            eval_dataset=batches,  # only asked for; `evaluate` reads `validation`
            data_collator=_only_item,
        )
        self.config = batches.config
        self.optimizer: torch.optim.Optimizer | None
        self.lr_scheduler: torch.optim.lr_scheduler.LRScheduler | None
        self.objective = objective
        self.validation = validation
        self.attack = build_attack(model, self.config.adversarial)
        self.remove_callback(PrinterCallback)
        self.average: WeightAverage | None = None
        if self.config.average.kind != "none":
            self.average = WeightAverage(model, self.config.average)
            self.add_callback(self.average)
        if self.config.early_stopping_patience:
            self.add_callback(EarlyStoppingCallback(self.config.early_stopping_patience))

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:  # noqa: ANN401
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        """Take the gradients of a batch, and those of an attack; return the batch's own loss."""
        step = super().training_step
        loss: Tensor = step(*args, **kwargs)
        if self.attack is not None:
            self.attack(partial(step, *args, **kwargs))
        return loss

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002 - Trainer's signature
    ) -> Any:  # noqa: ANN401 - Trainer's signature
        """Return the objective of a batch; with R-Drop of two passes, and how far they differ."""
        output = model(**model_inputs(inputs))
        loss = self.objective(output, inputs)
        if self.config.r_drop_weight:
            other = model(**model_inputs(inputs))
            column = self.accelerator.unwrap_model(model).first_label_column
            first, second = (
                label_logits(each.pair_logits, first_label_column=column)
                for each in (output, other)
            )
            loss = (loss + self.objective(other, inputs)) / 2
            divergence = inputs["pair_weight"] * symmetric_divergence(first, second)
            loss = loss + self.config.r_drop_weight * divergence
        return (loss, output) if return_outputs else loss

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Return the recipe's optimiser over the model's parameters."""
        if self.optimizer is None:
            self.optimizer = build_optimizer(model or self.model, self.config)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Return the recipe's schedule of the learning rate."""
        if self.lr_scheduler is None:
            self.lr_scheduler = build_scheduler(
                optimizer or self.optimizer,
                self.config,
                num_steps=num_training_steps,
                warmup_steps=self.args.warmup_steps,
            )
        return self.lr_scheduler

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        with disk_errors(Path(self.args.output_dir) / name):
            super()._save_checkpoint(*args, **kwargs)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:  # noqa: ANN401
        """Judge the model and keep the held-out rows' logits, if any, beside the checkpoints."""
        model = self.accelerator.unwrap_model(self.model)
        with self.average.in_place() if self.average else nullcontext():
            figures, logits = self.validation.evaluate(model, in_bf16=self.args.bf16)
        figures = {f"eval_{name}": value for name, value in figures.items()}
        if logits is not None and self.is_world_process_zero():
            step = self.state.global_step
            path = Path(self.args.output_dir) / EVALUATIONS / f"step-{step:08d}.npy"
            with atomic_write(path) as partial, partial.open("wb") as stream:
                np.save(stream, np.stack(logits))
        self.log(dict(figures))
        self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        return figures


def train_stage(
    model: MatchForPairs,
    batches: TrainingBatches,
    objective: Objective,
    validation: Validation,
    *,
    recipe: Recipe,
    stage: StageFolder,
) -> None:
    """Train `model` in place and leave checkpoints, evaluations and history in the work folder.

    A checkpoint there is continued from, with the same end as an uninterrupted training.

    Args:
        model: On the CPU or, where there is one, on its way to the GPU.
        batches: All batches of the stage.
        objective: What of a batch is to become small.
        validation: What it is judged by on the way.
        recipe: Its machine and its trackers are used.
        stage: The stage's folders.

    Raises:
        UserError: The newest whole checkpoint cannot be read or must not be continued from, or
            the disk is full.
    """
    if is_main_process():
        stage.begin()
    wait_for_everyone()
    folder = stage.work
    use_machine(recipe.machine)
    keep_freed_memory()
    if recipe.machine.dropout == "auto" and not torch.cuda.is_available():
        use_bank_dropout(model)
    arguments = _training_arguments(batches, recipe, stage, norm=model.config.norm)
    trainer = StageTrainer(
        model, arguments, batches=batches, objective=objective, validation=validation
    )
    trainer.add_callback(CheckpointSeal)  # after the average
    checkpoint = sound_checkpoint(folder)
    trainer.add_callback(ProgressBar(stage.label))
    add_tensorboard(
        trainer, recipe.tracking, stage.logs, last_step=step_of(checkpoint) if checkpoint else None
    )
    try:
        if trainer.average is not None and checkpoint is not None:
            trainer.average.load(checkpoint)
        trainer.train(resume_from_checkpoint=checkpoint)
    except UNREADABLE as error:
        if checkpoint is None or trainer.state.global_step > step_of(checkpoint):
            raise
        raise UserError(
            f"{checkpoint}: this checkpoint cannot be continued from ({error}); "
            f"`rm -r {checkpoint}` lets the same command go on from the one before it"
        ) from error
    if trainer.average is not None:
        trainer.average.settle(trainer.state.best_model_checkpoint)
    end_tracking(recipe.tracking)
    if trainer.is_world_process_zero():
        write_json(folder / HISTORY, _history(trainer.state, batches.stage))
    wait_for_everyone()


def finish_stage(
    model: MatchForPairs,
    prepared: Prepared,
    stage: StageFolder,
    *,
    figures: dict[str, Any] | None = None,
    labels: Mapping[str, NDArray[Any]] | None = None,
) -> None:
    """Write the trained model, its tokenizer, history and evaluations as the finished stage.

    Args:
        model: As trained.
        prepared: What it was trained on.
        stage: Begun by `train_stage`.
        figures: For the card.
        labels: Role to the labels that a model gave to its rows, where a later stage needs them.
    """
    if is_main_process():
        with stage.finish() as partial:
            model.save_pretrained(partial)
            prepared.vocabulary.save(partial)
            shutil.copy(stage.work / HISTORY, partial / HISTORY)
            if (stage.work / EVALUATIONS).is_dir():
                shutil.copytree(stage.work / EVALUATIONS, partial / EVALUATIONS)
            write_json(partial / FIGURES, figures or {})
            if labels is not None:
                np.savez(partial / LABELS, **labels)  # type: ignore[arg-type]
    wait_for_everyone()


def _training_arguments(
    batches: TrainingBatches, recipe: Recipe, stage: StageFolder, *, norm: str
) -> TrainingArguments:
    config = batches.config
    logging.getLogger("transformers.trainer").setLevel(logging.ERROR)
    interval = batches.steps_per_evaluation
    max_steps = interval * config.num_evaluations
    logging_steps = interval if interval % LOGS_PER_EVALUATION else interval // LOGS_PER_EVALUATION
    is_best_kept = config.keep == "best"
    arguments = TrainingArguments(
        output_dir=str(stage.work),
        run_name=f"{stage.home.resolve().name}/{stage.label}",
        max_steps=max_steps,
        per_device_train_batch_size=1,
        learning_rate=config.learning_rate,
        warmup_steps=round(warmup_ratio(config, norm) * max_steps),
        max_grad_norm=config.max_grad_norm,
        eval_strategy="steps",
        eval_steps=interval,
        save_strategy="steps",
        save_steps=interval,
        save_total_limit=2,
        load_best_model_at_end=is_best_kept,
        metric_for_best_model="roc_auc" if is_best_kept else None,
        greater_is_better=True if is_best_kept else None,
        logging_steps=logging_steps,
        seed=batches.seed,
        bf16=uses_bf16(recipe.machine),
        use_cpu=not torch.cuda.is_available(),
        dataloader_num_workers=loader_workers(),
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_nan_inf_filter=False,  # it would wait for a GPU at every step; validations look
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to=[name for name in recipe.tracking.trackers if name != "tensorboard"],
    )  # fmt: skip
    arguments._n_gpu = min(arguments.n_gpu, 1)  # DataParallel would cut packed rows apart
    return arguments


def warmup_ratio(config: TrainingConfig, norm: str) -> float:
    """Return the recipe's share of warm-up steps; unsaid, 0.05, and 0 for pre-norm.

    Pre-norm hardly needs one, post-norm's lower layers do (kexue.fm/archives/8747).
    """
    if config.warmup_ratio is not None:
        return config.warmup_ratio
    return 0.0 if norm == "pre" else DEFAULT_WARMUP_RATIO


DEFAULT_WARMUP_RATIO = 0.05


def _history(state: TrainerState, stage: str) -> list[dict[str, Any]]:
    """Return the logged figures, one dict a log line: stage, step, then what was logged."""
    names = {
        "loss": "loss",
        "eval_roc_auc": "roc_auc",
        "eval_mlm_loss": "mlm_loss",
        "learning_rate": "learning_rate",
        "grad_norm": "grad_norm",
    }
    lines = []
    for logged in state.log_history:
        kept = {name: logged[key] for key, name in names.items() if key in logged}
        if kept:
            lines.append({"stage": stage, "step": logged["step"], **kept})
    return lines


def _only_item(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    (batch,) = items
    return batch
