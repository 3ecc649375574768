"""Adversarial steps: the same batch once more, at weights that were moved against the loss.

An attack is called when the batch's own gradients are there. It moves some weights, adds the
gradients found where they lead to, and puts the weights back bit for bit. Sources: FGM, arXiv
1605.07725; PGD, arXiv 1706.06083; AWP, arXiv 2004.05884.

Shapes: V vocabulary, D hidden.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from desmatch.schema import Special

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from desmatch.model.heads import MatchForPairs
    from desmatch.recipe_training import AdversarialConfig

    Backward = Callable[[], object]
    """Runs the batch forward and backward and adds to the gradients."""


class Attack(Protocol):
    """An adversarial step."""

    def __call__(self, backward: Backward) -> None:
        """Add the gradients of the batch at moved weights."""


class Attacked(NamedTuple):
    """Entries of a parameter that are moved: those in `rows`."""

    parameter: nn.Parameter
    rows: slice = slice(None)

    @property
    def weight(self) -> Tensor:
        """A view of the entries."""
        return self.parameter.detach()[self.rows]

    @property
    def gradient(self) -> Tensor:
        """A view of their gradient; zeros where there is none."""
        if self.parameter.grad is None:
            return torch.zeros_like(self.weight)
        return self.parameter.grad[self.rows]


def token_rows(model: MatchForPairs) -> Attacked:
    """Return the embedding's rows of ordinary tokens, (V - 7, D).

    The special tokens stay: [NO] and [YES] are the output layer of the label, and a norm beside the
    embedding is not touched either.
    """
    return Attacked(model.get_input_embeddings().weight, slice(len(Special), None))


class FGM:
    """One move of length `epsilon` along the gradient of the token embedding."""

    def __init__(self, attacked: Attacked, *, epsilon: float) -> None:
        self.attacked, self.epsilon = attacked, epsilon

    def __call__(self, backward: Backward) -> None:
        """Add the gradients of the batch at moved weights."""
        with put_back([self.attacked.weight]):
            move(self.attacked.weight, self.attacked.gradient, length=self.epsilon)
            backward()


class PGD:
    """Several moves of length `step_size`, each brought back into a ball of radius `epsilon`.

    Only the gradients at the last place are added to the batch's own.
    """

    def __init__(
        self,
        model: nn.Module,
        attacked: Attacked,
        *,
        epsilon: float,
        step_size: float,
        num_steps: int,
    ) -> None:
        self.parameters = [each for each in model.parameters() if each.requires_grad]
        self.attacked, self.epsilon = attacked, epsilon
        self.step_size, self.num_steps = step_size, num_steps

    def __call__(self, backward: Backward) -> None:
        """Add the gradients of the batch at moved weights."""
        weight = self.attacked.weight
        clean = [each.grad for each in self.parameters]
        with put_back([weight]) as (start,):
            for number in range(1, self.num_steps + 1):
                move(weight, self.attacked.gradient, length=self.step_size)
                way = weight - start
                weight.copy_(start + way * (self.epsilon / way.norm().clamp_min(self.epsilon)))
                for each in self.parameters:
                    each.grad = None
                if number == self.num_steps:
                    _give_back(self.parameters, clean)
                backward()


class AWP:
    """Every matrix of the layers moved by `epsilon` of its own length along its gradient."""

    def __init__(self, attacked: Sequence[Attacked], *, epsilon: float) -> None:
        self.attacked, self.epsilon = attacked, epsilon

    def __call__(self, backward: Backward) -> None:
        """Add the gradients of the batch at moved weights."""
        with put_back([each.weight for each in self.attacked]):
            for each in self.attacked:
                length = self.epsilon * each.weight.norm()
                move(each.weight, each.gradient, length=length)
            backward()


def move(weight: Tensor, gradient: Tensor, *, length: float | Tensor) -> None:
    """Add to a weight, in place, a step of a length along its gradient; none without a gradient."""
    norm = gradient.norm()  # stays on its device: nothing waits for it
    weight.addcmul_(gradient, torch.where(norm > 0, length / norm, 0.0))


@contextmanager
def put_back(weights: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Give copies of the weights, and copy them back when the block ends, well or not."""
    kept = [each.clone() for each in weights]
    try:
        yield kept
    finally:
        for weight, before in zip(weights, kept, strict=True):
            weight.copy_(before)


def _give_back(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


def layer_matrices(model: MatchForPairs) -> list[Attacked]:
    """Return the matrices of the encoder's layers."""
    parameters = model.base_model.layers.parameters()
    return [Attacked(each) for each in parameters if each.ndim >= 2 and each.requires_grad]


def build_attack(model: MatchForPairs, config: AdversarialConfig) -> Attack | None:
    """Return the recipe's attack on a model; none where it has none."""
    match config.kind:
        case "none":
            return None
        case "fgm":
            return FGM(token_rows(model), epsilon=config.epsilon)
        case "pgd":
            return PGD(
                model,
                token_rows(model),
                epsilon=config.epsilon,
                step_size=config.step_size,
                num_steps=config.num_steps,
            )
        case "awp":
            return AWP(layer_matrices(model), epsilon=config.epsilon)
