"""Heads: tokens at masked cells, and the label of a pair.

Shapes: R rows of W cells, P chosen cells, M masked tokens, B pairs, S dropout samples, D hidden,
V vocabulary, C columns of a label: V for label tokens, else 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM
from transformers.activations import ACT2FN
from transformers.utils import ModelOutput

from desmatch.model.configuration import MatchConfig
from desmatch.model.dropout import Dropout
from desmatch.model.encoder import MatchModel, MatchPreTrainedModel, mean_of_pairs
from desmatch.model.heat import FullRows, Heat
from desmatch.model.layers import LayerNorm, Linear
from desmatch.model.naive_bayes import NaiveBayesHead
from desmatch.schema import Special

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass
class PairOutput(ModelOutput):  # type: ignore[misc]
    """What `MatchForPairs` returns.

    Attributes:
        logits: (M, V) at the masked cells; (R, W, V) where no cells were named.
        pair_logits: (B, C), or (S, B, C) where a head draws several dropout masks.
    """

    logits: Tensor | None = None
    pair_logits: Tensor | None = None


class MaskedLMHead(nn.Module):
    """Hidden states to logits over the vocabulary; the decoder is the token embedding.

    Its own dense layer and norm take the growth that the last norm's scale would take without
    them (kexue.fm/archives/8747).
    """

    def __init__(self, config: MatchConfig) -> None:
        super().__init__()
        self.dense: Linear | None = None
        if config.mlm_head_dense:
            self.dense = Linear(config.hidden_size, config.hidden_size)
            self.act = ACT2FN[config.hidden_act]
            self.norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """(P, D) and the embedding (V, D) to (P, V), in the dtype of `hidden`."""
        return self.decode(self.features(hidden), embedding)

    def features(self, hidden: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        if self.dense is None:
            return hidden
        return self.norm(self.act(self.dense(hidden)))

    def decode(self, features: Tensor, embedding: Tensor) -> Tensor:
        """(..., D) to (..., V)."""
        dtype = features.dtype
        return F.linear(features, embedding.to(dtype), self.bias.to(dtype))


class PairClassifier(nn.Module):
    """dense, activation, dropout, two logits; trained on the mean loss of several dropout masks.

    Source of the multi-sample dropout: arXiv 1905.09788.
    """

    def __init__(self, config: MatchConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.pooling, self.num_samples = config.pooling, config.num_dropout_samples
        self.dense = Linear(2 * width if config.pooling == "cls-mean" else width, width)
        self.act = ACT2FN[config.head_act]
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.output = Linear(width, 2)

    def _pool(self, hidden: Tensor, attention_mask: Tensor, pair_cells: Tensor) -> Tensor:
        """(N, D) to what the classifier sees of each pair: (B, D), or (B, 2D) for `cls-mean`."""
        parts = []
        if self.pooling != "mean":
            parts.append(hidden.index_select(0, pair_cells))
        if self.pooling != "cls":
            parts.append(mean_of_pairs(hidden, attention_mask, pair_cells))
        return torch.cat(parts, dim=-1)

    def forward(self, hidden: Tensor, attention_mask: Tensor, pair_cells: Tensor) -> Tensor:
        """Return logits of both labels, (B, 2); in training with several samples (S, B, 2).

        In evaluation they are in fp32.

        Args:
            hidden: (N, D).
            attention_mask: (R, W), int64, pairs by number.
            pair_cells: (B,), int64, into N, the cell of each pair's [CLS].
        """
        return self.classify(self._pool(hidden, attention_mask, pair_cells))

    def classify(self, pooled: Tensor) -> Tensor:
        """Return what `forward` does, of what is seen of each pair: (B, D), or (B, 2D)."""
        features = self.act(self.dense(pooled if self.training else pooled.float()))
        if not self.training or self.num_samples == 1:
            return self.output(self.dropout(features))
        return torch.stack([self.output(self.dropout(features)) for _ in range(self.num_samples)])


PAIR_HEADS: dict[str, Callable[[MatchConfig], PairClassifier | NaiveBayesHead | None]] = {
    "label-tokens": lambda _: None,
    "classifier": PairClassifier,
    "naive-bayes": NaiveBayesHead,
}
"""`head` of a config to its module; label tokens need none beside the MLM head."""


class MatchForPairs(MatchPreTrainedModel):
    """Encoder, masked-language-model head and what the config asks for beside them.

    That is a head for pairs, and the decoder of a heat stage, which such a stage alone uses.
    """

    _keys_to_ignore_on_load_unexpected = (r"^heat\.",)

    def __init__(self, config: MatchConfig) -> None:
        super().__init__(config)
        self.encoder = MatchModel(config)
        self.mlm_head = MaskedLMHead(config)
        self.pair_head = PAIR_HEADS[config.head](config)
        self.heat = None if config.heat_fill is None else Heat(config)
        self.post_init()

    @property
    def first_label_column(self) -> int:
        """Column of `pair_logits` that stands for label 0; the next one stands for label 1."""
        return int(Special.NO) if self.pair_head is None else 0

    def forward(  # noqa: PLR0913 - a model's inputs are its arguments
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        masked_cells: Tensor | None = None,
        pair_cells: Tensor | None = None,
        full_attention_mask: Tensor | None = None,
        full_position_ids: Tensor | None = None,
        neighbor_cells: Tensor | None = None,
    ) -> PairOutput:
        """Return logits at masked cells and of pairs.

        Args:
            input_ids: (R, W), int64; the other rows' arrays as in `MatchModel.forward`.
            attention_mask: (R, W), int64.
            position_ids: (R, W), int64.
            token_type_ids: (R, W), int64.
            masked_cells: (M,), int64, into the flattened (R * W,); neither these nor
                `pair_cells`: logits at every cell.
            pair_cells: (B,), int64, the cell of each pair's [CLS].
            full_attention_mask: (R', W'), int64, only where the rows lack tokens and the decoder
                fills them in: the rows of all tokens, see `desmatch.model.heat.FullRows`.
                `masked_cells` are cells of them then.
            full_position_ids: (R', W'), int64.
            neighbor_cells: (2, R', W'), int64, into the flattened (R * W,).
        """
        rows = (input_ids, attention_mask, position_ids, token_type_ids)
        embedding = self.get_input_embeddings().weight
        if masked_cells is None and pair_cells is None:
            hidden = self.encoder(*rows).last_hidden_state
            return PairOutput(logits=self.mlm_head(hidden, embedding))
        nowhere = input_ids.new_empty(0)
        masked_cells = nowhere if masked_cells is None else masked_cells
        pair_cells = nowhere if pair_cells is None else pair_cells
        if neighbor_cells is None and self._asks_for_few_cells:
            return self._at_cells(rows, masked_cells, pair_cells)
        hidden = self.encoder(*rows).last_hidden_state.flatten(0, 1)
        with torch.autocast(hidden.device.type, enabled=False):
            if neighbor_cells is None:
                masked = hidden.index_select(0, masked_cells)
            else:
                assert self.heat is not None, "the config has no heat_fill"
                full = FullRows(full_attention_mask, full_position_ids, neighbor_cells)
                masked = self.heat(hidden, position_ids, full, masked_cells)
            if attention_mask is None:
                attention_mask = torch.ones_like(input_ids)
            pairs = self._pair_logits(hidden, attention_mask, pair_cells)
            return PairOutput(logits=self.mlm_head(masked, embedding), pair_logits=pairs)

    @property
    def _asks_for_few_cells(self) -> bool:
        """Whether the pair's logits need the hidden state of its [CLS] alone."""
        head = self.pair_head
        return head is None or (isinstance(head, PairClassifier) and head.pooling == "cls")

    def _at_cells(
        self, rows: tuple[Tensor | None, ...], masked_cells: Tensor, pair_cells: Tensor
    ) -> PairOutput:
        """Both kinds of logits from the cells that are asked for; the last layer has no other."""
        cells = torch.cat([masked_cells, pair_cells])
        hidden = self.encoder(*rows, cells=cells).last_hidden_state  # (M + B, D)
        embedding = self.get_input_embeddings().weight
        num_masked = len(masked_cells)
        with torch.autocast(hidden.device.type, enabled=False):
            if isinstance(self.pair_head, PairClassifier):
                masked = self.mlm_head(hidden[:num_masked], embedding)
                return PairOutput(
                    logits=masked, pair_logits=self.pair_head.classify(hidden[num_masked:])
                )
            if self.training:
                logits = self.mlm_head(hidden, embedding)
                return PairOutput(logits=logits[:num_masked], pair_logits=logits[num_masked:])
            features = self.mlm_head.features(hidden)
            masked = self.mlm_head.decode(features[:num_masked], embedding)
            # scores are told apart by small differences, which bf16 would round to ties
            pairs = self.mlm_head.decode(features[num_masked:].float(), embedding)
        return PairOutput(logits=masked, pair_logits=pairs)

    def _pair_logits(self, hidden: Tensor, attention_mask: Tensor, pair_cells: Tensor) -> Tensor:
        """(N, D) to (B, C), or (S, B, C): in fp32 where they are scores."""
        if self.pair_head is None:
            head = self.mlm_head
            features = head.features(hidden.index_select(0, pair_cells))
            embedding = self.get_input_embeddings().weight
            return head.decode(features if self.training else features.float(), embedding)
        return self.pair_head(hidden, attention_mask, pair_cells)  # type: ignore[no-any-return]


FORWARD = frozenset(signature(MatchForPairs.forward).parameters)


def model_inputs(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what of a training batch the model takes; the rest is for the objective."""
    return {name: tensor for name, tensor in batch.items() if name in FORWARD}


AutoModelForMaskedLM.register(MatchConfig, MatchForPairs)
