"""Which command makes a stage again, and whether a run's stages are whole."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from desmatch.errors import UserError
from desmatch.runs import STAGE, damage_of
from desmatch.stage_table import STAGES
from desmatch.stages import RECIPE, load_run, refuse_newer

if TYPE_CHECKING:
    from pathlib import Path

    from desmatch.stage_table import Stage
    from desmatch.stages import Run


def mend_command(run: Run, stage: Stage) -> str:
    """Return the command that does a stage of a run, and only that one."""
    if stage.name != "prepare":
        return shlex.join(["desmatch", stage.name, str(run.folder)])
    words = ["desmatch", "prepare", "--recipe", str(run.folder / RECIPE)]
    for role, paths in run.sources.by_role().items():
        for path in paths:
            words += [f"--{role}", str(path)]
    words += ["--skip-bad"] if run.skip_bad else []
    return shlex.join([*words, "--out", str(run.folder)])


def require_whole(folder: Path) -> None:
    """Refuse a run of a newer version, or with a damaged stage, its members' stages too.

    Raises:
        UserError: It is one; of a damaged stage the message has the command that makes it again.
    """
    refuse_newer(folder)
    writers = {stage.writes: stage for stage in STAGES}
    order = [*writers]
    sealed = [path.parent for path in folder.rglob(STAGE) if path.parent.name in writers]
    for path in sorted(sealed, key=lambda path: (order.index(path.name), path)):
        if damage := damage_of(path):
            home = next((each for each in path.parents if (each / RECIPE).is_file()), None)
            if home is None:
                raise UserError(f"{damage}; copy the run again, with its {RECIPE}")
            command = mend_command(load_run(home), writers[path.name])
            raise UserError(f"{damage}; `{command}` makes it again")


def load_whole_run(folder: Path, **settings: Any) -> Run:  # noqa: ANN401 - Run's other fields
    """Load a run to read what its stages wrote, which may not be finished, but not be damaged.

    Raises:
        UserError: As `load_run` and `require_whole`.
    """
    run = load_run(folder, **settings)
    require_whole(folder)
    return run
