"""A run: its folder, what decides it, and the stages it goes through."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import groupby
from operator import attrgetter, getitem
from pathlib import Path
from typing import TYPE_CHECKING, Any

from desmatch.digests import digest_init, digest_sources
from desmatch.errors import UserError, nearest
from desmatch.intake import Sources
from desmatch.prepare import Prepared
from desmatch.recipe_file import load_recipe, member_recipe, recipe_to_yaml
from desmatch.runs import (
    CARD,
    MEMBERS,
    StageFolder,
    fold_name,
    read_json_object,
    value_digest,
    write_json,
    write_text,
)
from desmatch.seals import FORMAT, require_format
from desmatch.stage_table import STAGES, stage_that_writes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from desmatch.recipe import Recipe
    from desmatch.stage_table import Stage

RECIPE = "recipe.yaml"
SOURCES = "sources.json"
STAGE_LOG = "stages.json"
OTHER_FOLDER = "use that version, or name another folder"
END = "..."
"""The last line of a run's recipe, as YAML ends a document."""


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
        donors: Folders of other runs, whose finished stages of the same digest are taken over.
        say: Takes a line for the user.
    """

    folder: Path
    recipe: Recipe
    sources: Sources
    recipe_name: str = ""
    command: str = ""
    may_resume: bool = False
    skip_bad: bool = False
    donors: tuple[Path, ...] = ()
    say: Callable[[str], None] = lambda _: None

    @cached_property
    def folds(self) -> tuple[Run, ...]:
        """This run once for each fold that it trains, as a run that trains that fold alone."""
        if self.recipe.validation.folds == "one":
            return (self,)
        return tuple(self._alone(fold) for fold in self.recipe.validation.trained_folds)

    @cached_property
    def members(self) -> dict[str, Run]:
        """The members of an ensemble by name, each a whole run in RUN/members; none otherwise."""
        names = [*self.recipe.members]
        return {
            name: dataclasses.replace(
                self,
                folder=self.folder / MEMBERS / name,
                recipe=member_recipe(self.recipe, name),
                recipe_name=f"{self.recipe_name}, member {name}".removeprefix(", "),
                donors=(*self.donors, *(self.folder / MEMBERS / each for each in names[:place])),
            )
            for place, name in enumerate(names)
        }

    @property
    def member_predictions(self) -> dict[str, Path]:
        """Where the members of an ensemble write what they say, by name."""
        return {name: member.folder / "predictions" for name, member in self.members.items()}

    def of_member(self, name: str | None) -> Run:
        """Return a member of an ensemble; of a run that is none, with no name given, the run.

        Raises:
            UserError: There is no such member, or an ensemble's was not named.
        """
        known = ", ".join(self.members)
        if name in self.members:
            return self.members[name]
        if name is None and not known:
            return self
        if name is None:
            raise UserError(f"{self.folder}: an ensemble; name a member with --member: {known}")
        if not known:
            raise UserError(f"--member {name}: {self.folder} is no ensemble; leave the option out")
        raise UserError(f"--member {name}: no such member{nearest(name, self.members)}; "
                        f"{self.folder} has {known}")  # fmt: skip

    def of_fold(self, fold: int | None) -> Run:
        """Return this run as one that trains `fold` alone; none: the first that it trains.

        Raises:
            UserError: The run does not train this fold.
        """
        trained = self.recipe.validation.trained_folds
        if fold is not None and fold not in trained:
            known = ", ".join(map(str, trained))
            raise UserError(
                f"--fold {fold}: {self.folder} has no model of this fold; it has {known}"
            )
        return self.folds[0 if fold is None else trained.index(fold)]

    def _alone(self, fold: int) -> Run:
        validation = dataclasses.replace(self.recipe.validation, folds="one", fold=fold)
        return dataclasses.replace(
            self, recipe=dataclasses.replace(self.recipe, validation=validation)
        )

    def parts(self, stage: Stage) -> tuple[Run, ...]:
        """Return the runs that do a stage: one a fold, or this one."""
        return self.folds if stage.is_per_fold else (self,)

    def stage_folder(self, written: str) -> StageFolder:
        """Return the folder a stage writes, with its digest; a fold's stage needs a run of one."""
        home = self._home(stage_that_writes(written))
        return StageFolder(home / written, self.digest(written), self.may_resume, self.folder)

    def digest(self, written: str, *, with_split: bool = True) -> str:
        """Return the digest of all that decides what lies in `written`.

        Without the split it is that of what does not depend on how rows were dealt to folds.
        """
        known = self._known_digests
        if (written, with_split) not in known:
            known[written, with_split] = self._digest(written, with_split=with_split)
        return known[written, with_split]

    @cached_property
    def _known_digests(self) -> dict[tuple[str, bool], str]:
        return {}

    def _digest(self, written: str, *, with_split: bool) -> str:
        stage = stage_that_writes(written)
        recipe = dataclasses.asdict(self.recipe)
        values: dict[str, Any] = {
            name: reduce(getitem, name.split("."), recipe)
            for name in stage.options
            if with_split or not name.startswith("validation.")
        }
        values["read"] = [
            part.digest(name, with_split=with_split and not stage.is_label_free)
            for name in stage.reads
            for part in self.parts(stage_that_writes(name))
            if stage_that_writes(name).is_wanted(self.recipe)
        ]
        if stage.reads_members:
            values["members"] = [
                (name, member.digest(written)) for name, member in self.members.items()
            ]
        if stage.reads == ():
            values["sources"] = self.source_digests
            values["skip_bad"] = self.skip_bad
        if "model" in stage.options:  # what a checkpoint holds decides, not where it lies
            values["model"] |= {"init": None, "reference_counts": None}
            values["init"] = self._init_digests
        if stage.reads_teacher:
            values["teachers"] = [
                each.digest(each.last_model.name) for each in self.teachers.values()
            ]
        return value_digest(values)

    @cached_property
    def source_digests(self) -> dict[str, list[str]]:
        """The digests of the data files, by role."""
        return digest_sources(self.sources)

    @cached_property
    def _init_digests(self) -> list[str]:
        return digest_init(self.recipe)

    @cached_property
    def teachers(self) -> dict[str, Run]:
        """What teaches a run of one fold, by name: the runs of that fold of its teacher's members.

        Of a teacher that is no ensemble it is the teacher itself; without a teacher there is none.
        Every one of their last models has done without the fold.
        """
        given = self.recipe.distill.teacher
        if given is None:
            return {}
        folder = Path(given)
        if folder.resolve() == self.folder.resolve():
            raise UserError(f"--distill.teacher {given}: is this very run; name another --out")
        teacher = load_run(folder)
        trained = teacher.recipe.validation.trained_folds
        if self.held_out not in trained:
            raise UserError(
                f"--distill.teacher {given}: has no model that did without fold {self.held_out}, "
                f"only for {', '.join(map(str, trained))}; train one of every fold with --folds "
                f"{teacher.recipe.validation.num_folds}, or set --validation.fold {trained[0]}"
            )
        members = teacher.members or {folder.name: teacher}
        return {name: each.of_fold(self.held_out) for name, each in members.items()}

    @property
    def prepared(self) -> Prepared:
        """The prepared data."""
        return Prepared.load(self.folder / "prepared")

    @property
    def held_out(self) -> int:
        """The fold that a run of one fold holds out."""
        (fold,) = self.recipe.validation.trained_folds
        return fold

    @property
    def fold_folder(self) -> Path:
        """Where the models of a run of one fold lie."""
        return self.folder / fold_name(self.held_out)

    def model_before(self, written: str) -> Path | None:
        """Return the folder of the model that a stage of a run of one fold goes on from.

        None is before the first training stage: it makes the model that the recipe starts with.
        """
        for name in reversed(stage_that_writes(written).reads):
            writer = stage_that_writes(name)
            if writer.is_parallel and writer.is_wanted(self.recipe):
                return self._home(writer) / name
        return None

    @property
    def first_model(self) -> Path:
        """The folder of the first model that a run of one fold trains."""
        trains = (each for each in STAGES if each.is_parallel and each.is_wanted(self.recipe))
        first = next(trains)
        return self._home(first) / first.writes

    def _home(self, stage: Stage) -> Path:
        return self.fold_folder if stage.is_per_fold else self.folder

    @property
    def last_model(self) -> Path:
        """The folder of the last model that a run of one fold trains."""
        model = self.model_before("predictions")
        assert model is not None, "an ensemble has members, every other recipe trains"
        return model

    @property
    def last_models(self) -> tuple[Path, ...]:
        """The folders of the last models, one of each fold that is trained."""
        return tuple(part.last_model for part in self.folds)


def steps(run: Run) -> Iterator[tuple[Run, Stage]]:
    """Yield what a run does, in order; of a stage once a fold, the run of that fold alone.

    The stages of one fold come before those of the next, and a member's before those of the next
    member: what an interrupted run has is whole.
    """
    wanted = [stage for stage in STAGES if stage.is_wanted(run.recipe)]
    kinds = attrgetter("is_per_fold", "reads_members")
    for (is_per_fold, reads_members), neighbors in groupby(wanted, key=kinds):
        stages = list(neighbors)
        if reads_members:
            for member in run.members.values():
                yield from steps(member)
        for part in run.folds if is_per_fold else (run,):
            yield from ((part, stage) for stage in stages)


def read_stage_log(folder: Path) -> dict[str, Any]:
    """Return the minutes of the stages that were done in this run, each since its last start.

    A stage that is done once a fold is there as `fold-0/pretrain`.
    """
    path = folder / STAGE_LOG
    try:
        return read_json_object(path) if path.is_file() else {}
    except UserError as error:
        raise UserError(f"{error}, or `rm {path}`: it has the minutes of stages, no more") from None


def save_run(run: Run) -> None:
    """Write what a later command needs to go on with the run."""
    write_text(run.folder / RECIPE, f"{recipe_to_yaml(run.recipe)}{END}\n")
    write_json(run.folder / SOURCES, sources_to_json(run))


def sources_to_json(run: Run) -> dict[str, Any]:
    """Return the data files of a run, and how they were named, as written beside its recipe."""
    files = {role: [str(path) for path in paths] for role, paths in run.sources.by_role().items()}
    kept = {"format": FORMAT, "recipe_name": run.recipe_name, "skip_bad": run.skip_bad}
    return {**kept, **files}


def load_run(folder: Path, **settings: Any) -> Run:  # noqa: ANN401 - Run's other fields
    """Load a run that `desmatch prepare` or `desmatch run` began.

    Raises:
        UserError: The folder is no run, or one that a newer version made, or its recipe or the list
            of its files is damaged.
    """
    if not (folder / RECIPE).is_file() or not (folder / SOURCES).is_file():
        there = (folder / CARD).is_file()
        mend = command_of(folder) if there else "make one with `desmatch prepare` or `run`"
        raise UserError(f"{folder}: no run (no {RECIPE} or no {SOURCES}); {mend}")
    try:
        files = read_json_object(folder / SOURCES)
        require_format(folder / SOURCES, files, mend=OTHER_FOLDER)
        sources = Sources(
            tuple(Path(path) for path in files["train"]),
            Path(files["test"][0]),
            tuple(Path(path) for path in files["unlabeled"]),
        )
        kept = {name: files[name] for name in ("recipe_name", "skip_bad")}
        _require_whole(folder / RECIPE, has_end="format" in files)
        return Run(folder, load_recipe(folder / RECIPE), sources, **kept, **settings)
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"{folder / SOURCES}: lacks the files of a run ({error!r}); "
                        f"{command_of(folder)}") from None  # fmt: skip
    except UserError as error:
        raise UserError(f"{error}\n{command_of(folder)}") from None


def refuse_newer(folder: Path) -> None:
    """Refuse a folder in which a newer version has a run, whatever else is in it.

    Raises:
        UserError: It has.
    """
    try:
        kept = read_json_object(folder / SOURCES)
    except (UserError, OSError):
        return
    require_format(folder / SOURCES, kept, mend=OTHER_FOLDER)


def _require_whole(recipe: Path, *, has_end: bool) -> None:
    """Refuse a run's recipe that was cut short: what is left of it is one too."""
    if has_end and not recipe.read_bytes().rstrip().endswith(f"\n{END}".encode()):
        raise UserError(f"{recipe}: damaged, its last line is not {END}")


def command_of(folder: Path) -> str:
    """Say which command writes the recipe and the sources of a run anew; its stages stay."""
    try:
        words = shlex.split(str(read_json_object(folder / CARD)["command"]))
    except (UserError, KeyError, ValueError):
        words = []
    more = "writes recipe.yaml and sources.json anew and keeps the stages"
    if words[:2] != ["desmatch", "run"] or "--out" not in words[:-1]:
        return f"`desmatch run` with the options that made it {more}"
    words[words.index("--out") + 1] = str(folder)  # it may have been moved
    again = [word for word in words if word != "--resume"]
    return f"`{shlex.join([*again, '--resume'])}` {more}"
