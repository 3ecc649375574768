"""The main job, stage by stage: what each reads, what it writes, and when it is skipped."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from desmatch.card import METRICS, build_card, public_card
from desmatch.distill import require_teacher, write_soft_labels
from desmatch.errors import UserError
from desmatch.evaluate import evaluate_run, read_column
from desmatch.members import combine_run, ensemble_figures
from desmatch.mends import mend_command
from desmatch.predict import answers_of_labels, predict_run
from desmatch.prepare import FIGURES, prepare
from desmatch.report.content import read_content
from desmatch.report.page import write_report
from desmatch.runs import (
    CARD,
    CLOSURE,
    RANDOM_ROWS,
    TEST,
    StageFolder,
    fold_name,
    read_json,
    write_json,
)
from desmatch.stage_table import STAGES, Stage, stage_that_writes
from desmatch.stages import STAGE_LOG, Run, read_stage_log, refuse_newer, save_run, steps
from desmatch.submit import write_submission
from desmatch.temporary import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


def _prepare(run: Run, stage: StageFolder) -> None:
    with stage.finish() as folder:
        prepare(run.sources, run.recipe, folder, skip_bad=run.skip_bad)


def _mlm(run: Run, stage: StageFolder) -> None:
    from desmatch.train.mlm import train_mlm

    train_mlm(run.prepared, run.recipe, stage)


def _distill(run: Run, stage: StageFolder) -> None:
    with stage.finish() as folder:
        write_soft_labels(run, folder)


def _soft_labels(run: Run) -> dict[str, NDArray[np.float32]] | None:
    """Return what the teacher says of all rows; without a teacher nothing."""
    from desmatch.train.pretrain import read_labels

    has_teacher = run.recipe.distill.teacher is not None
    return read_labels(run.fold_folder / "soft-labels") if has_teacher else None


def _pretrain(run: Run, stage: StageFolder) -> None:
    from desmatch.train.pretrain import pretrain

    pretrain(
        run.prepared,
        run.recipe,
        stage,
        fold=run.held_out,
        start=run.model_before("pretrained"),
        labels=_soft_labels(run),
    )


def _finetune(run: Run, stage: StageFolder) -> None:
    from desmatch.train.finetune import finetune

    start = run.model_before("finetuned")
    labels = _soft_labels(run)
    finetune(run.prepared, run.recipe, start, stage, fold=run.held_out, labels=labels)


def _pseudo_label(run: Run, stage: StageFolder) -> None:
    from desmatch.train.pseudo_label import pseudo_label

    start = run.model_before("pseudo-labeled")
    assert start is not None, "a recipe has a joint stage or one on labels"
    pseudo_label(run.prepared, run.recipe, start, stage, fold=run.held_out)
    for each in read_json(stage.path / FIGURES)["rounds"]:
        kept = ", kept" if each["is_kept"] else ""
        run.say(f"{stage.label} round {each['round']}: validation AUC {each['roc_auc']:.4f}{kept}")


def _predict(run: Run, stage: StageFolder) -> None:
    with stage.finish() as folder:
        if run.members:
            _combine(run, folder)
        else:
            models = dict(zip(run.recipe.validation.trained_folds, run.last_models, strict=True))
            predict_run(run.prepared, run.recipe, models, folder)


def _combine(run: Run, folder: Path) -> None:
    """Combine what the models of the members say; what follows from labels is added once."""
    answers = answers_of_labels(run.prepared, run.recipe)
    write_json(folder / CLOSURE, answers.figures)
    shifts = {TEST: answers.test, RANDOM_ROWS: answers.random}
    combine_run(run.prepared, run.recipe, run.member_predictions, folder, shifts=shifts)


def _evaluate(run: Run, stage: StageFolder) -> None:
    with stage.finish() as folder:
        figures = evaluate_run(run.prepared, run.recipe, run.folder / "predictions")
        if run.members:
            figures |= ensemble_figures(run.prepared, run.recipe, run.member_predictions)
        write_json(folder / METRICS, figures)


def _submit(run: Run, stage: StageFolder) -> None:
    scores = read_column(run.folder / "predictions" / TEST, "score")
    with stage.finish(beside=[run.folder / CARD]) as folder:
        write_submission(folder, scores, expected_rows=len(run.prepared.rows["test"]))
        card = build_card(run.folder, run.recipe, recipe_name=run.recipe_name, command=run.command)
        write_json(folder / CARD, public_card(card))
        write_json(run.folder / CARD, card)


def _report(run: Run, stage: StageFolder) -> None:
    write_report(stage.path.parent, read_content(run.folder))


ACTS: dict[str, Callable[[Run, StageFolder], None]] = {
    "prepare": _prepare,
    "mlm": _mlm,
    "distill": _distill,
    "pretrain": _pretrain,
    "finetune": _finetune,
    "pseudo-label": _pseudo_label,
    "predict": _predict,
    "evaluate": _evaluate,
    "submit": _submit,
    "report": _report,
}
"""A stage's name to what does its work; what is done once a fold gets a run of one fold."""


def execute(run: Run, *, only: str | None = None) -> None:
    """Do all stages, or one of them; finished ones that still hold are skipped.

    An ensemble does them for each member, one after the other, and then for itself.

    Raises:
        UserError: Bad input, or `only` needs a stage that has not been done.
    """
    from desmatch.train.processes import is_main_process
    from desmatch.train.tracking import require_trackers

    refuse_newer(run.folder)
    require_trackers(run.recipe.tracking)
    if is_main_process() and only not in (None, "prepare"):
        save_run(run)
    _do(run, [each for each in steps(run) if only in (None, each[1].name)])


def execute_fold(run: Run, fold: int) -> Path:
    """Do what leads to the last model of one fold, as the whole run would; return its folder.

    Raises:
        UserError: Bad input, or the run does not train this fold.
    """
    from desmatch.train.tracking import require_trackers

    refuse_newer(run.folder)
    require_trackers(run.recipe.tracking)
    model = run.of_fold(fold).last_model
    makes = [each for each in STAGES if each.name == "prepare" or each.is_parallel
             or each.is_per_fold]  # fmt: skip
    _do(run, [(part, stage) for part, stage in steps(run) if stage in makes
              and (not stage.is_per_fold or part.held_out == fold)])  # fmt: skip
    return model


def execute_step(part: Run, stage: Stage) -> None:
    """Do one of the steps of `stages.steps`, unless it still holds; what it reads is there.

    Raises:
        UserError: Bad input, or something that it reads is missing.
    """
    _do(part, [(part, stage)])


def _do(run: Run, chosen: Sequence[tuple[Run, Stage]]) -> None:
    from desmatch.train.processes import is_main_process, wait_for_everyone

    for part, stage in chosen:
        if stage.reads_teacher:
            require_teacher(part)
    for part, stage in chosen:
        if stage.name == "prepare" and part is not run:
            run.say(f"member {part.folder.name}: {part.folder}")
        _require_inputs(part, stage)
        _do_step(part, stage)
        if is_main_process() and stage.name == "prepare":
            save_run(part)  # not before: files that are refused leave no run behind
        wait_for_everyone()


def _do_step(run: Run, stage: Stage) -> None:
    """Do one stage, unless it is finished here or in a run that gives its stages."""
    from desmatch.train.processes import is_main_process, wait_for_everyone

    folder = run.stage_folder(stage.writes)
    is_finished = folder.is_finished
    donor = None if is_finished else _donor(run, stage, folder)
    wait_for_everyone()
    if is_finished:
        run.say(f"{stage.name}: {folder.path} still holds, skipped")
        if is_main_process():
            folder.drop_work()
            _log_cut_off(run, stage)
    elif donor is not None:
        run.say(f"{stage.name}: {folder.path} is that of {donor}, taken over")
        if is_main_process():
            folder.adopt(donor)
            _log(run, stage, minutes=0.0, is_taken_over=True)
    else:
        if folder.path.is_dir():
            why = folder.damage or f"{folder.path} is of other inputs or options"
            run.say(f"{stage.name}: {why}, made again")
        _act(run, stage, folder)


def _donor(run: Run, stage: Stage, folder: StageFolder) -> Path | None:
    """Return where another run has this very stage: data or a model, for the rest is soon made."""
    if not (stage.is_parallel or stage.name == "prepare"):
        return None
    places = [donor / folder.label for donor in run.donors]
    return next((place for place in places if replace(folder, path=place).is_finished), None)


def _act(run: Run, stage: Stage, folder: StageFolder) -> None:
    from desmatch.train.processes import is_main_process

    started = time.monotonic()
    is_resumed = any(folder.work.glob("checkpoint-*"))
    if stage.is_parallel or is_main_process():
        ACTS[stage.name](run, folder)
    minutes = (time.monotonic() - started) / 60
    if is_main_process():
        _log(run, stage, minutes=minutes, is_resumed=is_resumed)


def _log(
    run: Run,
    stage: Stage,
    *,
    minutes: float,
    is_resumed: bool = False,
    is_taken_over: bool = False,
) -> None:
    entry = {"minutes": round(minutes, 3), "is_resumed": is_resumed}
    if is_taken_over:
        entry["is_taken_over"] = True
    with locked(run.folder / STAGE_LOG):  # folds are trained at once, and log here
        log = read_stage_log(run.folder)
        write_json(run.folder / STAGE_LOG, {**log, _logged_as(run, stage): entry})


def _log_cut_off(run: Run, stage: Stage) -> None:
    """Log a finished stage of which the log knows nothing: killed before it could say its time."""
    if _logged_as(run, stage) not in read_stage_log(run.folder):
        _log(run, stage, minutes=0.0, is_resumed=True)


def _logged_as(run: Run, stage: Stage) -> str:
    return f"{fold_name(run.held_out)}/{stage.name}" if stage.is_per_fold else stage.name


def _require_inputs(run: Run, stage: Stage) -> None:
    for name in stage.reads:
        writer = stage_that_writes(name)
        if not writer.is_wanted(run.recipe):
            continue
        folders = [part.stage_folder(name) for part in run.parts(writer)]
        unfinished = [folder for folder in folders if not folder.is_finished]
        if unfinished:
            why = unfinished[0].damage or f"{unfinished[0].path}: missing or out of date"
            raise UserError(f"{why}; run `{mend_command(run, writer)}` first")
