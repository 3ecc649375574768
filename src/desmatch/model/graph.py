"""Models as a function of padded pairs, and that function as a graph for other runtimes.

Shapes: B pairs, L tokens, F models, D hidden.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from desmatch.schema import Special

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from desmatch.model.heads import MatchForPairs

INPUTS, OUTPUT = ("input_ids", "attention_mask"), "logits"
"""Names in the graph."""

OPSET = 23
"""Of ONNX: the first whose operators turn heads by their positions and attend."""


class PairScorer(nn.Module):
    """What a model says of pairs, one pair a row: log p(yes) - log p(no)."""

    def __init__(self, model: MatchForPairs) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (B,).

        Args:
            input_ids: (B, L), int64, [CLS] a [SEP] b [SEP] and padding.
            attention_mask: (B, L), int64, 1 at tokens and 0 at padding.
        """
        first_cells = torch.arange(input_ids.shape[0], device=input_ids.device) * input_ids.shape[1]
        if self.model.pair_head is None:
            return self._label_tokens(input_ids, attention_mask, first_cells)
        output = self.model(input_ids, attention_mask, pair_cells=first_cells)
        return output.pair_logits[:, 1] - output.pair_logits[:, 0]  # type: ignore[no-any-return]

    def _label_tokens(
        self, input_ids: Tensor, attention_mask: Tensor, first_cells: Tensor
    ) -> Tensor:
        """Two rows of the vocabulary are all that is asked for, and only how they differ."""
        hidden = self.model.encoder(
            input_ids, attention_mask, cells=first_cells
        ).last_hidden_state  # (B, D)
        head, embedding = self.model.mlm_head, self.model.get_input_embeddings().weight
        yes, no = int(Special.YES), int(Special.NO)
        direction = embedding[yes] - embedding[no]  # (D,)
        difference = (head.features(hidden) * direction).sum(dim=-1)
        return difference + (head.bias[yes] - head.bias[no])  # type: ignore[no-any-return]


class SideBySide(nn.Module):
    """Several models of one vocabulary: (B, L) and (B, L) to (B, F)."""

    def __init__(self, models: Sequence[MatchForPairs]) -> None:
        super().__init__()
        self.scorers = nn.ModuleList(PairScorer(model) for model in models)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (B, F)."""
        each = [scorer(input_ids, attention_mask) for scorer in self.scorers]
        return torch.stack(each, dim=1)


def write_graphs(models: Sequence[MatchForPairs], paths: Sequence[Path]) -> None:
    """Write models of one architecture and vocabulary as ONNX graphs of (B, L) to (B, 1).

    The graph is traced once; the others have it with their own weights.

    Args:
        models: On the CPU; they are left in evaluation mode.
        paths: A file for each.
    """
    program = _traced(SideBySide(models[:1]), optimize=False)  # so that weights keep their names
    for model, path in zip(models, paths, strict=True):
        named = SideBySide([model]).state_dict()
        program.apply_weights({name: named[name] for name in program.model.graph.initializers})
        program.save(path)


def write_one_graph(models: Sequence[MatchForPairs], path: Path) -> None:
    """Write models of one vocabulary as one ONNX graph of (B, L) to (B, F).

    Both orders of a pair are two rows of one call.

    Args:
        models: F models, on the CPU; they are left in evaluation mode.
        path: Of the file.
    """
    _traced(SideBySide(models), optimize=True).save(path)


def write_program(model: MatchForPairs, path: Path) -> None:
    """Write a model as a program of `torch.export`, (B, L) and (B, L) to (B, 1)."""
    scorer = SideBySide([model]).eval()
    with torch.no_grad(), _quiet():
        program = torch.export.export(scorer, _example(), dynamic_shapes=_axes())
        program = program.run_decompositions(torch.onnx.ops.aten_decompositions())
        torch.export.save(program, path)


def _example() -> tuple[Tensor, Tensor]:
    ids = torch.full((2, 8), int(Special.UNK))
    return ids, torch.ones_like(ids)


def _axes() -> dict[str, dict[int, torch.export.Dim]]:
    """Both axes of both inputs are free."""
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    return dict.fromkeys(INPUTS, axes)


def _traced(scorer: SideBySide, *, optimize: bool) -> torch.onnx.ONNXProgram:
    """Return the graph of models, B and L free."""
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            scorer.eval(),
            _example(),
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_shapes=_axes(),
            dynamo=True,
            opset_version=OPSET,
            optimize=optimize,
            verbose=False,
        )
    assert program is not None, "the exporter of torch.export always gives one"
    return program


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on its own insides from the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
