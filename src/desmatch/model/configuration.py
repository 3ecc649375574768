"""What an encoder is made of: saved as config.json beside its weights."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig

from desmatch.schema import Special


class MatchConfig(PreTrainedConfig):  # type: ignore[misc]
    """Shape and choices of a `MatchForPairs`; every name is a keyword argument.

    Args:
        vocab_size: V.
        hidden_size: D.
        num_hidden_layers: Layers.
        num_attention_heads: H; D is a multiple of it.
        intermediate_size: Width of the feed-forward blocks.
        hidden_act: Their activation, a name of transformers' `ACT2FN`.
        hidden_dropout_prob: Dropout after the embedding and every branch.
        attention_probs_dropout_prob: Dropout of the attention's probabilities.
        max_position_embeddings: Most tokens of a pair; for relative and rotary positions no
            weight depends on it.
        type_vocab_size: Rows of the token type embedding.
        layer_norm_eps: Of every norm.
        position: `absolute` (BERT, arXiv 1810.04805), `relative` (NEZHA, arXiv 1909.00204) or
            `rotary` (RoFormer, arXiv 2104.09864).
        norm: `post`, `pre` or `deepnorm` (arXiv 2203.00555).
        residual_scale: Alpha of deepnorm; 0: as `deepnorm_rule` says.
        deepnorm_rule: Alpha and beta of deepnorm: `paper`, (2N)^(1/4) and (8N)^(-1/4), or `adam`,
            (2N)^(1/2) and (2N)^(-1/2) (kexue.fm/archives/8978).
        initialization: Of the matrices; see `desmatch.model.initialization`.
        initializer_range: Sigma of `initialization="bert"` and of every embedding.
        mlm_head_dense: Whether the head has its extra dense layer and norm.
        head: Where a pair's label is read: `label-tokens` at [CLS], a `classifier`, or
            `naive-bayes` over all tokens.
        pooling: What the classifier sees: `cls`, `mean` or `cls-mean`, both side by side.
        head_act: The classifier's activation.
        num_dropout_samples: Dropout masks of the pair head in a training step.
        heat_fill: What the decoder of a heat stage is given for a token, see
            `desmatch.model.heat`; none: the model has no such decoder.
        num_heat_layers: Layers of that decoder.
    """

    model_type = "desmatch"

    def __init__(  # noqa: PLR0913 - a config is its arguments
        self,
        *,
        vocab_size: int = 30522,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        hidden_act: str = "gelu",
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        layer_norm_eps: float = 1e-12,
        position: str = "absolute",
        norm: str = "post",
        residual_scale: float = 0.0,
        deepnorm_rule: str = "paper",
        initialization: str = "bert",
        initializer_range: float = 0.02,
        mlm_head_dense: bool = True,
        head: str = "label-tokens",
        pooling: str = "cls",
        head_act: str = "tanh",
        num_dropout_samples: int = 1,
        heat_fill: str | None = None,
        num_heat_layers: int = 1,
        **others: Any,  # noqa: ANN401 - transformers' own settings
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.layer_norm_eps = layer_norm_eps
        self.position = position
        self.norm = norm
        self.residual_scale = residual_scale
        self.deepnorm_rule = deepnorm_rule
        self.initialization = initialization
        self.initializer_range = initializer_range
        self.mlm_head_dense = mlm_head_dense
        self.head = head
        self.pooling = pooling
        self.head_act = head_act
        self.num_dropout_samples = num_dropout_samples
        self.heat_fill = heat_fill
        self.num_heat_layers = num_heat_layers
        others.setdefault("pad_token_id", int(Special.PAD))
        super().__init__(**others)

    @property
    def head_size(self) -> int:
        """Width d of an attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def alpha(self) -> float:
        """What deepnorm multiplies the straight path with: (2N)^(1/4), or (2N)^(1/2) for Adam."""
        if self.residual_scale:
            return self.residual_scale
        exponent = {"paper": 0.25, "adam": 0.5}[self.deepnorm_rule]
        return float((2 * self.num_hidden_layers) ** exponent)

    @property
    def beta(self) -> float:
        """What the branches' matrices start scaled by: 1 but for the initialization `deepnorm`.

        Then (8N)^(-1/4), the paper's, or for Adam (2N)^(-1/2).
        """
        if self.initialization != "deepnorm":
            return 1.0
        factor, exponent = {"paper": (8, -0.25), "adam": (2, -0.5)}[self.deepnorm_rule]
        return float((factor * self.num_hidden_layers) ** exponent)
