"""The main job, stage by stage: what each reads, what it writes, and when it is skipped."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from desmatch.card import METRICS, STAGE_LOG, build_card, read_stage_log
from desmatch.errors import UserError
from desmatch.evaluate import read_column, read_random_rows, read_scored, validation_figures
from desmatch.predict import RANDOM_ROWS, TEST, VALIDATION, predict_run
from desmatch.prepare import ROLES, Prepared, Sources, prepare
from desmatch.recipe import Recipe, load_recipe, recipe_to_yaml
from desmatch.report.page import ReportContent, write_report
from desmatch.runs import (
    CARD,
    StageFolder,
    file_digest,
    read_json,
    value_digest,
    write_json,
    write_text,
)
from desmatch.submit import write_submission
from desmatch.train.trainer import HISTORY

if TYPE_CHECKING:
    from collections.abc import Callable

RECIPE = "recipe.yaml"
SOURCES = "sources.json"
MODEL_FOLDERS = ("pretrained", "finetuned", "pseudo-labeled")


@dataclass(frozen=True)
class Run:
    """A run's folder and what decides it.

    Attributes:
        folder: RUN.
        recipe: All values.
        recipe_name: What the user called it.
        command: What the user typed; empty where Python started the run.
        sources: The data files.
        may_resume: Go on with an interrupted training.
        skip_bad: Leave malformed rows of train and unlabeled out.
        say: Takes a line for the user.
    """

    folder: Path
    recipe: Recipe
    sources: Sources
    recipe_name: str = ""
    command: str = ""
    may_resume: bool = False
    skip_bad: bool = False
    say: Callable[[str], None] = lambda _: None

    def stage_folder(self, name: str) -> StageFolder:
        """Return the folder a stage writes, with its digest."""
        return StageFolder(self.folder / name, self.digest(name), self.may_resume)

    def digest(self, written: str) -> str:
        """Return the digest of all that decides what lies in `written`."""
        stage = next(stage for stage in STAGES if stage.writes == written)
        values = {part: dataclasses.asdict(self.recipe)[part] for part in stage.options}
        values["read"] = [self.digest(name) for name in stage.reads]
        if stage.reads == ():
            values["sources"] = self._source_digests
            values["skip_bad"] = self.skip_bad
        if "model" in stage.options:
            values["init"] = self._init_digests
        return value_digest(values)

    @cached_property
    def _source_digests(self) -> dict[str, list[str]]:
        return _digest_sources(self.sources)

    @cached_property
    def _init_digests(self) -> list[str]:
        return _digest_init(self.recipe)

    @property
    def prepared(self) -> Prepared:
        """The prepared data."""
        return Prepared.load(self.folder / "prepared")

    @property
    def last_model(self) -> Path:
        """The folder of the last model this recipe trains."""
        if _has_pseudo_labels(self.recipe):
            return self.folder / "pseudo-labeled"
        return self.trained_model

    @property
    def trained_model(self) -> Path:
        """The folder of the last model before any pseudo-labels."""
        return self.folder / ("finetuned" if _has_finetune(self.recipe) else "pretrained")


class Stage(NamedTuple):
    """One step of the main job.

    Attributes:
        name: The verb of the command line.
        reads: What earlier stages wrote.
        writes: A file or folder inside the run's folder.
        options: The parts of the recipe that it uses; with `reads` they decide whether an
            artefact that is there still holds.
        act: Does the work.
        is_parallel: Whether all processes take part; otherwise the first one works alone.
        is_wanted: Whether a recipe has this stage at all.
    """

    name: str
    reads: tuple[str, ...]
    writes: str
    options: tuple[str, ...]
    act: Callable[[Run, StageFolder], None]
    is_parallel: bool = False
    is_wanted: Callable[[Recipe], bool] = lambda _: True


def _prepare(run: Run, stage: StageFolder) -> None:
    with stage.finish() as folder:
        prepare(run.sources, run.recipe, folder, skip_bad=run.skip_bad)


def _pretrain(run: Run, stage: StageFolder) -> None:
    from desmatch.train.pretrain import pretrain

    pretrain(run.prepared, run.recipe, stage)


def _finetune(run: Run, stage: StageFolder) -> None:
    from desmatch.train.finetune import finetune

    finetune(run.prepared, run.recipe, run.folder / "pretrained", stage)


def _pseudo_label(run: Run, stage: StageFolder) -> None:
    from desmatch.train.pseudo_label import pseudo_label

    pseudo_label(run.prepared, run.recipe, run.trained_model, stage)


def _predict(run: Run, stage: StageFolder) -> None:
    with stage.finish() as folder:
        predict_run(run.prepared, run.recipe, run.last_model, folder)


def _evaluate(run: Run, stage: StageFolder) -> None:
    predictions = run.folder / "predictions"
    scored = read_scored(predictions / VALIDATION)
    random_rows = read_random_rows(predictions / RANDOM_ROWS, predictions / TEST)
    test_size = len(run.prepared.rows["test"])
    with stage.finish() as folder:
        figures = validation_figures(
            scored, run.recipe, test_size=test_size, random_rows=random_rows
        )
        write_json(folder / METRICS, figures)


def _submit(run: Run, stage: StageFolder) -> None:
    scores = read_column(run.folder / "predictions" / TEST, "score")
    with stage.finish() as folder:
        write_submission(folder, scores, expected_rows=len(run.prepared.rows["test"]))
        card = build_card(run.folder, run.recipe, recipe_name=run.recipe_name, command=run.command)
        write_json(folder / CARD, card)
    write_json(run.folder / CARD, card)


def _report(run: Run, stage: StageFolder) -> None:
    prepared = run.prepared
    scored = read_scored(run.folder / "predictions" / VALIDATION)
    histories = [run.folder / name / HISTORY for name in MODEL_FOLDERS]
    content = ReportContent(
        card=read_json(run.folder / CARD),
        history=[line for path in histories if path.is_file() for line in read_json(path)],
        labels=scored.labels,
        scores=scored.honest_scores,
        test_scores=read_column(run.folder / "predictions" / TEST, "score"),
        lengths={role: prepared.text_lengths(role) for role in ROLES},
        component_sizes=np.bincount(prepared.graph("train").pair_component),
    )
    write_report(stage.path.parent, content)


def _has_finetune(recipe: Recipe) -> bool:
    return recipe.finetune.num_train_epochs > 0


def _has_pseudo_labels(recipe: Recipe) -> bool:
    return recipe.pseudo_labels.rounds > 0


STAGES = (
    Stage("prepare", (), "prepared", ("seed", "data", "validation"), _prepare),
    Stage("pretrain", ("prepared",), "pretrained", ("seed", "model", "pretrain", "machine"),
          _pretrain, is_parallel=True),
    Stage("finetune", ("prepared", "pretrained"), "finetuned", ("seed", "finetune", "machine"),
          _finetune, is_parallel=True, is_wanted=_has_finetune),
    Stage("pseudo-label", ("prepared", "pretrained", "finetuned"), "pseudo-labeled",
          ("seed", "pseudo_labels", "finetune", "machine"),
          _pseudo_label, is_parallel=True, is_wanted=_has_pseudo_labels),
    Stage("predict", ("prepared", "pretrained", "finetuned", "pseudo-labeled"), "predictions",
          ("seed", "machine"), _predict),
    Stage("evaluate", ("prepared", "predictions"), "metrics", ("seed", "validation"), _evaluate),
    Stage("submit", ("prepared", "predictions", "metrics"), "submission", ("seed",), _submit),
    Stage("report", ("prepared", "predictions", "metrics", "submission"), "report.html", (),
          _report),
)  # fmt: skip
"""The stages in order; a stage reads only what an earlier one wrote."""


def execute(run: Run, *, only: str | None = None) -> None:
    """Do all stages, or one of them; finished ones that still hold are skipped.

    Raises:
        UserError: Bad input, or `only` needs a stage that has not been done.
    """
    from desmatch.train.processes import is_main_process, wait_for_everyone

    if is_main_process() and only not in (None, "prepare"):
        _describe(run)
    for stage in STAGES:
        if not stage.is_wanted(run.recipe) or only not in (None, stage.name):
            continue
        _require_inputs(run, stage)
        folder = run.stage_folder(stage.writes)
        is_finished = folder.is_finished
        wait_for_everyone()
        if is_finished:
            run.say(f"{stage.name}: {folder.path} still holds, skipped")
        else:
            if folder.path.is_dir():
                run.say(f"{stage.name}: its inputs or options have changed, made again")
            _act(run, stage, folder)
        if is_main_process() and stage.name == "prepare":
            _describe(run)  # not before: files that are refused leave no run behind
        wait_for_everyone()


def _describe(run: Run) -> None:
    """Write what a later command needs to go on with the run."""
    write_text(run.folder / RECIPE, recipe_to_yaml(run.recipe))
    write_json(run.folder / SOURCES, sources_to_json(run))


def _act(run: Run, stage: Stage, folder: StageFolder) -> None:
    from desmatch.train.processes import is_main_process

    started = time.monotonic()
    is_resumed = any(folder.work.glob("checkpoint-*"))
    if stage.is_parallel or is_main_process():
        stage.act(run, folder)
    minutes = (time.monotonic() - started) / 60
    if is_main_process():
        log = read_stage_log(run.folder)
        log[stage.name] = {"minutes": round(minutes, 3), "is_resumed": is_resumed}
        write_json(run.folder / STAGE_LOG, log)


def _require_inputs(run: Run, stage: Stage) -> None:
    for name in stage.reads:
        writer = next(each for each in STAGES if each.writes == name)
        if writer.is_wanted(run.recipe) and not run.stage_folder(name).is_finished:
            raise UserError(
                f"{run.folder / name}: missing or out of date; "
                f"run `desmatch {writer.name} {run.folder}` first"
            )


def sources_to_json(run: Run) -> dict[str, Any]:
    """Return the data files of a run, and how they were named, as written beside its recipe."""
    files = {role: [str(path) for path in paths] for role, paths in run.sources.by_role().items()}
    return {"recipe_name": run.recipe_name, "skip_bad": run.skip_bad, **files}


def load_run(folder: Path, **settings: Any) -> Run:  # noqa: ANN401 - Run's other fields
    """Load a run that `desmatch prepare` or `desmatch run` began.

    Raises:
        UserError: The folder is no run.
    """
    if not (folder / RECIPE).is_file() or not (folder / SOURCES).is_file():
        raise UserError(
            f"{folder}: no run (no {RECIPE}); make one with `desmatch prepare` or `run`"
        )
    files = read_json(folder / SOURCES)
    sources = Sources(
        tuple(Path(path) for path in files["train"]),
        Path(files["test"][0]),
        tuple(Path(path) for path in files["unlabeled"]),
    )
    kept = {name: files[name] for name in ("recipe_name", "skip_bad")}
    return Run(folder, load_recipe(folder / RECIPE), sources, **kept, **settings)


def _digest_sources(sources: Sources) -> dict[str, list[str]]:
    digests = {}
    for role, paths in sources.by_role().items():
        missing = [str(path) for path in paths if not path.is_file()]
        if missing:
            raise UserError("\n".join(f"{path}: no such file" for path in missing))
        digests[role] = [file_digest(path) for path in paths]
    return digests


def _digest_init(recipe: Recipe) -> list[str]:
    if recipe.model.init is None:
        return []
    folder = Path(recipe.model.init)
    files = [folder / name for name in ("config.json", "vocab.txt", "model.safetensors")]
    if recipe.model.reference_counts is not None:
        files.append(Path(recipe.model.reference_counts))
    for path in files:
        if not path.is_file():
            raise UserError(f"{path}: no such file; --model.init needs a folder with config.json, "
                            "vocab.txt and model.safetensors")  # fmt: skip
    return [file_digest(path) for path in files]
