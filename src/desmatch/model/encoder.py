"""The encoder: packed rows of pairs in, hidden states out.

Shapes: R rows of W cells, N = R * W, D hidden, P chosen cells. Sources: BERT (arXiv 1810.04805),
RoFormer (2104.09864), NEZHA (1909.00204), DeepNet (2203.00555); kexue.fm/archives/8747 and 9009.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutput

from desmatch.model.attention import ATTENTIONS, Layout, block_bias
from desmatch.model.configuration import MatchConfig
from desmatch.model.dropout import Dropout
from desmatch.model.initialization import initialize
from desmatch.model.layers import LayerNorm, Linear, activation_dtype
from desmatch.model.norms import NORMS


class Embeddings(nn.Module):
    """Token, token type and, where positions are absolute, position; then norm and dropout."""

    def __init__(self, config: MatchConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.word = nn.Embedding(config.vocab_size, width)
        self.token_type = nn.Embedding(config.type_vocab_size, width)
        if config.position == "absolute":
            self.position = nn.Embedding(config.max_position_embeddings, width)
        else:
            self.position = None
        self.norm = LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        token_type_ids: Tensor | None,
        dtype: torch.dtype,
    ) -> Tensor:
        """(R, W) each to (N, D); without token types all are of type 0."""
        types = (
            self.token_type.weight[0] if token_type_ids is None else self.token_type(token_type_ids)
        )
        x = self.word(input_ids) + types
        if self.position is not None:
            x = x + self.position(position_ids)
        return self.dropout(self.norm(x).to(dtype)).flatten(0, 1)


class FeedForward(nn.Module):
    """expand, activation, contract."""

    def __init__(self, config: MatchConfig) -> None:
        super().__init__()
        gains = (config.beta,)
        self.expand = Linear(config.hidden_size, config.intermediate_size, gains=gains)
        self.act = ACT2FN[config.hidden_act]
        self.contract = Linear(config.intermediate_size, config.hidden_size, gains=gains)

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) to (N, D)."""
        return self.contract(self.act(self.expand(x)))


class Layer(nn.Module):
    """Attention and feed-forward block, each a residual branch."""

    def __init__(self, config: MatchConfig) -> None:
        super().__init__()
        self.attention = ATTENTIONS[config.position](config)
        self.attention_norm = NORMS[config.norm](config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = NORMS[config.norm](config)

    def forward(self, x: Tensor, layout: Layout, cells: Tensor | None = None) -> Tensor:
        """(N, D) to (N, D), or to (P, D) at `cells` alone."""
        branch = self.attention(self.attention_norm.enter(x), layout, cells)
        x = self.attention_norm.leave(x if cells is None else x.index_select(0, cells), branch)
        branch = self.feed_forward(self.feed_forward_norm.enter(x))
        return self.feed_forward_norm.leave(x, branch)


def run_layers(
    layers: nn.ModuleList,
    x: Tensor,
    attention_mask: Tensor,
    position_ids: Tensor,
    cells: Tensor | None = None,
) -> Tensor:
    """Send packed rows through layers: (N, D) to (N, D), or to (P, D) at `cells` alone.

    Args:
        layers: At least one `Layer`.
        x: (N, D).
        attention_mask: (R, W), int64, pairs by number.
        position_ids: (R, W), int64.
        cells: (P,), int64, into N; the last layer then computes no other.
    """
    places = layers[0].attention.places(position_ids, x.dtype)
    num_rows, width = attention_mask.shape
    layout = Layout(num_rows, width, block_bias(attention_mask, x.dtype), places)
    *lower, last = layers
    for layer in lower:
        x = layer(x, layout)
    return last(x, layout, cells)  # type: ignore[no-any-return]


def closing_norm(config: MatchConfig) -> nn.Module:
    """Return the norm that follows the last layer, (N, D) to (N, D).

    The straight path of pre-norm ends without one; elsewhere nothing follows.
    """
    if config.norm == "pre":
        return LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
    return nn.Identity()


class MatchPreTrainedModel(PreTrainedModel):  # type: ignore[misc]
    """What our models share: the config's class and how parameters start."""

    config_class = MatchConfig
    base_model_prefix = "encoder"
    accepts_loss_kwargs = False

    def _init_weights(self, module: nn.Module) -> None:
        weight = getattr(module, "weight", None)
        if not getattr(weight, "_is_hf_initialized", False):  # read from a file
            initialize(
                module, scheme=self.config.initialization, sigma=self.config.initializer_range
            )

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the token embedding."""
        return self.base_model.embeddings.word

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token embedding."""
        self.base_model.embeddings.word = value


class MatchModel(MatchPreTrainedModel):
    """The encoder alone, without a head."""

    def __init__(self, config: MatchConfig) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.final_norm = closing_norm(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        cells: Tensor | None = None,
    ) -> BaseModelOutput:
        """Return the last hidden states, (R, W, D), or (P, D) at `cells` alone.

        Under autocast the whole pass runs in autocast's dtype, the embedding's sum and norm aside.

        Args:
            input_ids: (R, W), int64.
            attention_mask: (R, W), int64; the cells of a row's pairs carry a number of their own
                and padding 0; none: every row is one pair without padding.
            position_ids: (R, W), int64, of each token in its pair; none: counted along the row.
            token_type_ids: (R, W), int64; none: all 0.
            cells: (P,), int64, into the flattened (R * W,); the last layer then computes no
                other: the rest of a row only lends its keys and values.
        """
        num_rows, width = input_ids.shape
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if position_ids is None:
            position_ids = torch.arange(width, device=input_ids.device).expand(num_rows, width)
        dtype = activation_dtype(input_ids.device)
        with torch.autocast(input_ids.device.type, enabled=False):
            x = self.embeddings(input_ids, position_ids, token_type_ids, dtype)
            x = self.final_norm(run_layers(self.layers, x, attention_mask, position_ids, cells))
        return BaseModelOutput(
            last_hidden_state=x.view(num_rows, width, -1) if cells is None else x
        )


def mean_of_pairs(hidden: Tensor, attention_mask: Tensor, pair_cells: Tensor) -> Tensor:
    """Return the mean hidden state of each pair's tokens, (B, D).

    Args:
        hidden: (N, D).
        attention_mask: (R, W), pairs by number.
        pair_cells: (B,), any cell of each pair.
    """
    belongs = belongs_to_pairs(attention_mask, pair_cells).to(hidden.dtype)
    return F.normalize(belongs, p=1.0, dim=1) @ hidden


def belongs_to_pairs(attention_mask: Tensor, pair_cells: Tensor) -> Tensor:
    """Return which cells are tokens of each pair, (B, N), bool.

    Args:
        attention_mask: (R, W), pairs by number.
        pair_cells: (B,), any cell of each pair.
    """
    row = torch.arange(attention_mask.shape[0], device=attention_mask.device)[:, None]
    pair = (row * (attention_mask.max() + 1) + attention_mask).flatten()  # one number a pair
    return pair[pair_cells][:, None] == pair[None, :]


AutoConfig.register(MatchConfig.model_type, MatchConfig)
AutoModel.register(MatchConfig, MatchModel)
