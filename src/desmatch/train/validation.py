"""What a stage is judged by while it trains. Shapes: B validation rows, M masked tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch.nn.functional import cross_entropy

from desmatch.errors import DivergedError, UserError
from desmatch.metrics.roc import roc_auc
from desmatch.model.heads import model_inputs
from desmatch.model.scoring import PairLogits, inference, score_pairs

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from desmatch.data.vocabulary import EncodedPairs
    from desmatch.model.heads import MatchForPairs
    from desmatch.prepare import Prepared

EVALUATIONS = "evaluations"
"""Folder of the held-out rows' logits at each evaluation of a stage."""


class Evaluation(NamedTuple):
    """Figures by name, and the logits of the held-out rows where there are some."""

    figures: dict[str, float]
    logits: PairLogits | None


class ValidationRows(NamedTuple):
    """Held-out rows: `pairs` of B rows, and their `labels` (B,), 0 or 1."""

    pairs: EncodedPairs
    labels: NDArray[np.int8]

    def evaluate(self, model: MatchForPairs, *, in_bf16: bool) -> Evaluation:
        """Score the rows in both orders.

        Raises:
            DivergedError: A score is not finite.
        """
        logits = score_pairs(model, self.pairs, in_bf16=in_bf16)
        _require_finite(logits.scores)
        return Evaluation({"roc_auc": roc_auc(self.labels, logits.scores)}, logits)


class MaskedRows(NamedTuple):
    """Batches whose tokens are hidden by a noise of their own; the rows may train too."""

    batches: list[dict[str, Tensor]]

    def evaluate(self, model: MatchForPairs, *, in_bf16: bool) -> Evaluation:
        """Return the mean cross-entropy of the masked tokens, in nats.

        Raises:
            DivergedError: It is not finite.
        """
        total = count = 0.0
        with inference(model, in_bf16=in_bf16):
            for batch in self.batches:
                here = {name: tensor.to(model.device) for name, tensor in batch.items()}
                logits = model(**model_inputs(here)).logits.float()  # (M, V)
                total += float(cross_entropy(logits, here["masked_labels"], reduction="sum"))
                count += len(logits)
        _require_finite(total)
        return Evaluation({"mlm_loss": total / max(count, 1)}, None)


def _require_finite(values: NDArray[np.float64] | float) -> None:
    """Refuse to go on with a model that is broken.

    Raises:
        DivergedError: A value is not finite.
    """
    if not np.isfinite(values).all():
        raise DivergedError("training diverged: what the model says is not finite; set the stage's "
                            "learning_rate lower, or its warmup_ratio higher")  # fmt: skip


def validation_rows(prepared: Prepared, fold: int) -> ValidationRows:
    """Return the rows of the held-out fold."""
    held_out = np.flatnonzero(prepared.train_column("fold") == fold)
    labels = prepared.train_column("label")[held_out]
    return ValidationRows(prepared.encode("train").take(held_out), labels)


def read_evaluations(folder: Path) -> list[PairLogits]:
    """Return the validation rows' logits at every evaluation of a stage, in order.

    Raises:
        UserError: One cannot be read.
    """
    kept = []
    for path in sorted((folder / EVALUATIONS).glob("*.npy")):
        try:
            forward, backward = np.load(path).astype(np.float64)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path}: cannot be read ({error}); `rm -r {folder}` and run the stage "
                            "that trains it again") from None  # fmt: skip
        kept.append(PairLogits(forward, backward))
    return kept
