"""Labels for a student: what a finished run says of every row, honest by fold.

The student of a fold hears only models that did without that fold, and hears nothing of rows that
would tell of it: held-out rows, and rows without a label that share a text with them. Of an
ensemble the members' probabilities are averaged, whatever its rule: a rule that is fitted out of
fold knows the labels of the fold, if by a few weights only.

Distillation: Hinton et al., arXiv 1503.02531. Shapes: B rows of a role.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from desmatch.errors import UserError
from desmatch.intake import ROLES
from desmatch.metrics.roc import roc_auc
from desmatch.model.batch import UNLABELED
from desmatch.parts import cut
from desmatch.predict import predict_texts
from desmatch.prepare import FIGURES, touches_fold, training_mask
from desmatch.runs import write_json
from desmatch.train.machine import use_machine, uses_bf16
from desmatch.train.trainer import LABELS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from desmatch.prepare import Prepared
    from desmatch.stages import Run

TAUGHT_ROWS = 1 << 18
"""Rows that a teacher encodes and scores together."""


def require_teacher(run: Run) -> None:
    """Refuse a teacher that cannot teach a run of one fold, before anything trains.

    Raises:
        UserError: The teacher is of other labelled rows or other folds, has no model that did
            without the fold, or is not finished; the message says what to do.
    """
    said = f"--distill.teacher {run.recipe.distill.teacher}"
    for teacher in run.teachers.values():
        _require_same_rows(said, run, teacher)
        model = teacher.last_model
        if not teacher.stage_folder(model.name).is_finished:
            raise UserError(
                f"{said}: {model} is missing or out of date; finish it with its `desmatch run` "
                "and --resume"
            )


def _require_same_rows(said: str, run: Run, teacher: Run) -> None:
    """Refuse a teacher whose models may have seen the rows that the student holds out."""
    here, there = ((each.source_digests["train"], each.skip_bad) for each in (run, teacher))
    if here != there:
        raise UserError(
            f"{said}: is of other labelled rows than this run; give both the same --data (and "
            "--skip-bad), or another teacher"
        )
    ours, theirs = (
        {
            "num_folds": each.recipe.validation.num_folds,
            "random_share": each.recipe.validation.random_share,
            "split_seed": each.recipe.validation.seed_of_folds(each.recipe.seed),
        }
        for each in (run, teacher)
    )
    if ours != theirs:
        options = " ".join(f"--validation.{name} {value}" for name, value in theirs.items())
        raise UserError(f"{said}: its folds are others than those of this run; add {options}")


def write_soft_labels(run: Run, folder: Path) -> None:
    """Write the labels that a student of one fold trains on, and figures of its teacher.

    Rows of the training data that may train have the weighted mean of the teacher's probability
    and their own label, rows without a label the former; all others have none.

    Args:
        run: Of one fold; its prepared data are there.
        folder: An empty folder.

    Raises:
        UserError: As `require_teacher`.
    """
    require_teacher(run)
    use_machine(run.recipe.machine)
    prepared, fold, weight = run.prepared, run.held_out, run.recipe.distill.weight
    for teacher in run.teachers.values():
        _require_same_folds(run, teacher)
    models = [teacher.last_model for teacher in run.teachers.values()]
    in_bf16 = uses_bf16(run.recipe.machine)
    probs = {role: teacher_probs(prepared, role, models, in_bf16=in_bf16) for role in ROLES}
    gold, may_train = prepared.train_column("label"), training_mask(prepared, fold)
    mixed = (1 - weight) * gold + weight * probs["train"]
    labels = {"train": np.where(may_train, mixed, UNLABELED).astype(np.float32)}
    for role in ("test", "unlabeled"):
        is_silent = touches_fold(prepared, role, fold)
        labels[role] = np.where(is_silent, UNLABELED, probs[role]).astype(np.float32)
    np.savez(folder / LABELS, **labels)  # type: ignore[arg-type]
    held_out = prepared.train_column("fold") == fold
    figures: dict[str, Any] = {
        "teachers": [*run.teachers],
        "weight": weight,
        "soft_labels": {role: int((each != UNLABELED).sum()) for role, each in labels.items()},
        "teacher_roc_auc": roc_auc(gold[held_out], probs["train"][held_out]),
    }
    write_json(folder / FIGURES, figures)


def _require_same_folds(run: Run, teacher: Run) -> None:
    """Refuse a teacher of another version that deals rows to folds in another way."""
    here, there = (each.prepared.train_column("fold") for each in (run, teacher))
    if not np.array_equal(here, there):
        raise UserError(
            f"--distill.teacher {run.recipe.distill.teacher}: {teacher.folder} holds out other "
            "rows than this run; make it again with this version"
        )


def teacher_probs(
    prepared: Prepared, role: str, models: list[Path], *, in_bf16: bool = False
) -> NDArray[np.float64]:
    """Return (B,), the mean of the models' probabilities of label 1, each by its vocabulary.

    In bfloat16 they are as good a lesson, several times as fast.
    """
    rows = prepared.rows[role].data.table
    bar = f"teaching {role}"
    scores = [
        [
            predict_texts([model], part["a"], part["b"], progress=bar, in_bf16=in_bf16).scores
            for part in cut([rows], TAUGHT_ROWS)
        ]
        for model in models
    ]
    means = [np.mean(part, axis=0) for part in zip(*scores, strict=True)]
    return np.concatenate([np.empty(0), *means])
