"""A bar of steps in the terminal, and a line for every validation."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from tqdm import tqdm
from transformers import TrainerCallback

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

LOG_FILE_SECONDS = 60.0
"""How often the progress is written where no terminal shows it."""


class ProgressBar(TrainerCallback):  # type: ignore[misc]
    """A bar of steps, with the loss beside it and a line for every validation."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.bar: Any = None
        self.loss = float("nan")

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Open the bar at the step that training starts from."""
        del args, control
        if state.is_world_process_zero:
            first = state.global_step
            self.bar = tqdm(
                total=state.max_steps,
                initial=first,
                desc=self.stage,
                unit="step",
                mininterval=0.2 if sys.stderr.isatty() else LOG_FILE_SECONDS,
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Move the bar."""
        del args, control
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Show the loss on the bar, and a validation on a line of its own."""
        del args, control
        if self.bar is None or not logs:
            return
        if "loss" in logs:
            self.loss = logs["loss"]
            self.bar.set_postfix(refresh=False, loss=f"{self.loss:.3f}")
        if "eval_roc_auc" in logs:
            auc = logs["eval_roc_auc"]
            self.bar.write(f"{self.stage} step {state.global_step}: loss {self.loss:.4f}, "
                           f"validation AUC {auc:.4f}")  # fmt: skip

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Close the bar."""
        del args, state, control
        if self.bar is not None:
            self.bar.close()
            self.bar = None
