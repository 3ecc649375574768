"""A model without dropout at its start, and what can be seen inside it.

Shapes: R rows of W cells, N = R * W, D hidden, T layers.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from desmatch.model.configuration import MatchConfig
from desmatch.model.heads import MatchForPairs
from desmatch.runs import seed_everything
from desmatch.schema import Special

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor, nn

FIRST_ID = len(Special)
"""The first token id that is no special token."""

VOCAB_SIZE = 1000


def fresh_model(*, layers: int, width: int = 64, seed: int = 0, **choices: Any) -> MatchForPairs:  # noqa: ANN401 - MatchConfig's arguments
    """Return a model of random weights, dropout off, heads of 64 or a quarter of a small width."""
    seed_everything(seed)
    settings = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": max(4, width // 64),
        "intermediate_size": 4 * width,
        "max_position_embeddings": 64,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    return MatchForPairs(MatchConfig(**{**settings, **choices}))


def random_ids(rows: int = 8, width: int = 32, *, seed: int = 0) -> Tensor:
    """Return (R, W) token ids, each as likely as any other."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(FIRST_ID, VOCAB_SIZE, (rows, width)))


def layer_states(model: MatchForPairs, ids: Tensor) -> Tensor:
    """Return (T + 1, N, D): what enters the first layer, then what leaves each."""
    seen = _outputs_of([model.encoder.embeddings, *model.encoder.layers], model, ids)
    return torch.stack([output for _, output in seen])


def branch_variances(model: MatchForPairs, ids: Tensor) -> list[float]:
    """Return for each of the 2T residual branches its output's variance over its input's.

    A variance is that of a token's D entries, averaged over tokens.
    """
    layers = model.encoder.layers
    branches = [each for layer in layers for each in (layer.attention, layer.feed_forward)]
    return [
        float(output.var(dim=-1).mean() / x.var(dim=-1).mean())
        for x, output in _outputs_of(branches, model, ids)
    ]


def _outputs_of(
    modules: Iterable[nn.Module], model: MatchForPairs, ids: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Return the first input and the output of each module, in the order in which they run."""
    seen: list[tuple[Tensor, Tensor]] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((inputs[0], output))

    hooks = [module.register_forward_hook(keep) for module in modules]
    with torch.inference_mode():
        model.encoder(ids)
    for hook in hooks:
        hook.remove()
    return seen


def scale_every_branch(model: MatchForPairs, factor: float) -> None:
    """Let every residual branch's output be multiplied by a factor: x + factor f(x)."""
    multiply = partial(_times, factor)
    for layer in model.encoder.layers:
        layer.attention.register_forward_hook(multiply)
        layer.feed_forward.register_forward_hook(multiply)


def _times(factor: float, _: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
    return factor * output


def log_log_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the slope of the line through (log x, log y) by least squares."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
