"""Averages of the weights along the way of a training: EMA, SWA and Lookahead.

Sources: SWA, arXiv 1803.05407; Lookahead, arXiv 1907.08610; the averages are torch's
`swa_utils.AveragedModel`. All three are one average that takes the weights in at certain steps:

    ema         at every step, new = d old + (1 - d) weights, d rising to `decay` as steps are taken
    swa         at each of the last `last` evaluations, all counting the same
    lookahead   at every `every` steps, half old and half weights, which then start from there

A validation sees the average as soon as there is one, and the average is what leaves the stage.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import (
    AveragedModel,
    get_ema_multi_avg_fn,
    get_swa_multi_avg_fn,
)
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from desmatch.runs import atomic_write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from desmatch.recipe_training import AverageConfig

AVERAGE = "average.safetensors"

LOOKAHEAD_SHARE = 0.5
"""Of the way to the weights that Lookahead's average goes at a time."""


class WeightAverage(TrainerCallback):  # type: ignore[misc]
    """Keeps an average of a model's weights beside them, in its checkpoints too.

    Args:
        model: That is trained.
        config: Kind of average and its numbers.
    """

    def __init__(self, model: nn.Module, config: AverageConfig) -> None:
        self.model, self.config = model, config
        self.average = AveragedModel(model, multi_avg_fn=MIXES[config.kind](config))
        self.average.requires_grad_(requires_grad=False)

    @property
    def is_there(self) -> bool:
        """Whether the average has taken weights in."""
        return bool(self.average.n_averaged)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Take the weights in, if it is time."""
        del control
        if self._takes_in(state.global_step, args):
            self.average.update_parameters(self.model)
            if self.config.kind == "lookahead":
                _copy(self.average.module, self.model)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Write the average into the checkpoint."""
        del control
        if state.is_world_process_zero:
            name = f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            with atomic_write(Path(args.output_dir) / name / AVERAGE) as partial:
                save_file(self.average.state_dict(), partial)

    def load(self, checkpoint: str | Path) -> None:
        """Go on from a checkpoint's average.

        Raises:
            OSError: The checkpoint has none.
        """
        self.average.load_state_dict(load_file(Path(checkpoint) / AVERAGE))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model the average's weights until the block ends."""
        if not self.is_there:
            yield
            return
        own = {name: each.detach().clone() for name, each in self.model.named_parameters()}
        _copy(self.average.module, self.model)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    parameter.copy_(own[name])

    def settle(self, checkpoint: str | None = None) -> None:
        """Give the model the average's weights for good: of a checkpoint, or the newest.

        Raises:
            OSError: The checkpoint has none.
        """
        if checkpoint is not None:
            self.load(checkpoint)
        if self.is_there:
            _copy(self.average.module, self.model)

    def _takes_in(self, step: int, args: TrainingArguments) -> bool:
        match self.config.kind:
            case "lookahead":
                return step % self.config.every == 0
            case "swa":
                evaluations = args.max_steps // args.eval_steps
                number, rest = divmod(step, args.eval_steps)
                return bool(rest == 0 and number > evaluations - self.config.last)
            case _:
                return True


def rising_ema(decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor], None]:
    """Return how an average of decay at most (1 + n) / (10 + n) takes in the n-th weights.

    So what training began with is soon forgotten, however short the stage; for `AveragedModel`.
    """

    def mix(averaged: list[Tensor], current: list[Tensor], number: Tensor) -> None:
        taken = float(number)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + taken) / (10 + taken)))

    return mix


MIXES: dict[str, Callable[[AverageConfig], Any]] = {
    "ema": lambda config: rising_ema(config.decay),
    "swa": lambda _: get_swa_multi_avg_fn(),
    "lookahead": lambda _: get_ema_multi_avg_fn(1 - LOOKAHEAD_SHARE),
}
"""`kind` of an average to how it takes weights in."""


def _copy(source: nn.Module, target: nn.Module) -> None:
    with torch.no_grad():
        for here, there in zip(target.parameters(), source.parameters(), strict=True):
            here.copy_(there)
