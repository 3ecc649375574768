"""The knobs of a training stage: objective, optimiser, noise, averages, pseudo-labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from desmatch.errors import require

Schedule = Literal[
    "linear", "cosine", "constant", "constant_with_warmup", "inverse_time", "inverse_square"
]

Fill = Literal["linear", "mask", "copy", "extrapolate"]


@dataclass(frozen=True, kw_only=True)
class AmosConfig:
    """Settings of Amos beside its rate."""

    beta: float = 0.999
    """Decay of the mean square of gradients."""
    momentum: float = 0.0
    """Decay of a running mean of the updates; 0: none, and no memory for it."""
    initial_b: float = 0.0
    """Where the decay's own clock starts; the larger, the nearer weights stay to their start."""

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        for name in ("beta", "momentum"):
            require(0 <= getattr(self, name) < 1, f"amos.{name}", getattr(self, name), "in [0, 1)")
        require(self.initial_b >= 0, "amos.initial_b", self.initial_b, "0 or more")


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig:
    """A second pass of every batch at weights that were moved against the loss."""

    kind: Literal["none", "fgm", "pgd", "awp"] = "none"
    """FGM: the token embedding, once; PGD: in several steps; AWP: all matrices of the layers."""
    epsilon: float = 0.25
    """How far: of the embedding's gradient direction; for AWP the share of a matrix's length."""
    step_size: float = 0.1
    """Of each of PGD's steps."""
    num_steps: int = 3
    """PGD's steps."""

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        for name in ("epsilon", "step_size"):
            require(getattr(self, name) > 0, f"adversarial.{name}", getattr(self, name), "above 0")
        require(self.num_steps >= 1, "adversarial.num_steps", self.num_steps, "1 or more")


@dataclass(frozen=True, kw_only=True)
class AverageConfig:
    """An average of the weights along the way, which leaves the stage in their place."""

    kind: Literal["none", "ema", "swa", "lookahead"] = "none"
    """EMA: of all steps; SWA: of the last evaluations; Lookahead: half a way, now and then."""
    decay: float = 0.999
    """EMA's decay a step."""
    last: int = 4
    """Evaluations that SWA averages."""
    every: int = 5
    """Steps between Lookahead's."""

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        require(0 < self.decay < 1, "average.decay", self.decay, "in (0, 1)")
        for name in ("last", "every"):
            require(getattr(self, name) >= 1, f"average.{name}", getattr(self, name), "1 or more")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One training stage."""

    num_train_epochs: float = 1.0
    """Passes over the rows of the stage; 0 leaves the stage out."""
    batch_size: int = 64
    """Pairs a step, of all processes together."""
    optimizer: Literal["adamw", "amos"] = "adamw"
    """AdamW, or Amos (arXiv 2210.11693), which decays weights and rate by itself."""
    learning_rate: float = 1e-4
    """Peak learning rate; for Amos its global rate, about 1 / sqrt(number of batches)."""
    lr_scheduler_type: Schedule = "linear"
    """Shape of the learning rate after the warm-up."""
    half_life: float = 0.0
    """Steps after the warm-up at which the schedules inverse_time and inverse_square are one half;
    0: a third of the stage."""
    scale: Literal["none", "model"] = "none"
    """AdamW's steps as they are, or in units of each parameter's deviation."""
    warmup_ratio: float | None = None
    """Share of the steps over which the learning rate rises from 0; none: 0.05, without need of
    one (pre-norm) 0."""
    weight_decay: float = 0.01
    """Decoupled weight decay of matrices and embeddings; Amos has its own."""
    amos: AmosConfig = field(default_factory=lambda: AmosConfig())
    """Amos' further settings."""
    max_grad_norm: float = 1.0
    """Gradients longer than this are shortened to it."""
    num_evaluations: int = 4
    """Validations, and checkpoints, spread evenly over the stage."""
    keep: Literal["best", "last"] = "best"
    """The weights that leave the stage: of the best validation AUC, or of the last step."""
    objective: Literal["mlm", "heat"] = "mlm"
    """How the joint stage predicts tokens: in place (BERT), or left out of the encoder and
    filled in from their neighbours' features (QB-Heat, arXiv 2211.13228)."""
    fill: Fill = "linear"
    """What heat gives its decoder for a token: the two neighbours interpolated, a learned vector,
    the nearest neighbour, or the nearest end of the one piece that is kept of each text."""
    num_heat_layers: int = 1
    """Layers of heat's decoder, 1 or 2."""
    mlm_probability: float = 0.15
    """Share of the tokens that are predicted; 0: labels only."""
    mask_unit: Literal["token", "ngram", "word"] = "token"
    """What is predicted together: tokens one by one, n-grams of 1 to 3, or words: neighbours with
    a high mutual information."""
    swap_probability: float = 0.5
    """Chance that the two texts of a pair change places in a pass."""
    label_weight: float = 1.0
    """Weight of a label token's loss beside a masked token's."""
    embedding_rate: float = 1.0
    """Factor of the learning rate of the token embedding: a checkpoint's layers are trained, the
    rows of its embedding are only guessed by their rank."""
    layer_decay: float = 1.0
    """Factor of the learning rate from layer to layer, from the heads down to the embedding."""
    label_smoothing: float = 0.0
    """Share of a label that is spread over both; of the stage on labels alone."""
    r_drop_weight: float = 0.0
    """Weight of the divergence of two passes with different dropout; 0: one pass."""
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    """A second pass at weights moved against the loss."""
    average: AverageConfig = field(default_factory=AverageConfig)
    """The average of the weights that leaves the stage in their place."""
    early_stopping_patience: int = 0
    """Evaluations without a better AUC after which the stage ends; 0: never."""

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        for name in ("num_train_epochs", "label_weight", "weight_decay", "half_life"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        for name in ("batch_size", "num_evaluations"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("mlm_probability", "swap_probability", "warmup_ratio"):
            value = getattr(self, name)
            require(value is None or 0 <= value < 1, name, value, "a share in [0, 1)")
        for name in ("learning_rate", "max_grad_norm"):
            require(getattr(self, name) > 0, name, getattr(self, name), "more than 0")
        require(self.embedding_rate > 0, "embedding_rate", self.embedding_rate, "more than 0")
        require(0 < self.layer_decay <= 1, "layer_decay", self.layer_decay, "in (0, 1]")
        smoothing, patience = self.label_smoothing, self.early_stopping_patience
        require(0 <= smoothing < 1, "label_smoothing", smoothing, "a share in [0, 1)")
        require(self.r_drop_weight >= 0, "r_drop_weight", self.r_drop_weight, "0 or more")
        is_sound = patience == 0 or (patience > 0 and self.keep == "best")
        require(is_sound, "early_stopping_patience", patience, "0, or more with keep best")
        layers, share = self.num_heat_layers, self.mlm_probability
        require(layers in (1, 2), "num_heat_layers", layers, "1 or 2")
        has_tokens = self.objective == "mlm" or share > 0
        require(has_tokens, "mlm_probability", share, "more than 0 with the objective heat")

    @property
    def heat_fill(self) -> Fill | None:
        """The fill where the objective is heat, else none."""
        return self.fill if self.objective == "heat" else None


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """A finished run teaches this one (arXiv 1503.02531): its probabilities train beside labels."""

    teacher: str | None = None
    """Folder of a finished run or ensemble of the same data and folds; its models of a fold teach
    the model of that fold, by the mean of their probabilities. None: no teacher."""
    weight: float = 0.5
    """Share of the teacher's probability in the label of a labelled row, the rest is the gold one.
    Rows without a label have the teacher's alone."""

    def __post_init__(self) -> None:
        """Refuse a share without a meaning."""
        require(0 < self.weight <= 1, "distill.weight", self.weight, "a share in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class PseudoLabelConfig:
    """Training goes on with labels that the model itself is sure of."""

    rounds: int = 0
    """Times that unlabelled rows are labelled and trained on; 0: never."""
    stop: bool = True
    """Whether rounds go on only as long as the AUC of the held-out rows rises: the first one that
    brings no gain is dropped and ends them."""
    kind: Literal["hard", "soft"] = "hard"
    """Hard: 0 and 1 for the surest rows; soft: the model's probability for the same rows."""
    share: float = 0.5
    """Share of the unlabelled rows that is labelled: the surest ones, in the classes' ratio."""
    confidence: float = 0.5
    """Rows whose label is less probable than this get none, whatever the share."""
    in_finetune: bool = False
    """Whether the stage on labels that follows a round sees these labels too."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """The joint training of a round; the fine-tuning stage follows it."""

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        require(self.rounds >= 0, "pseudo_labels.rounds", self.rounds, "0 or more")
        require(0 < self.share <= 1, "pseudo_labels.share", self.share, "a share in (0, 1]")
        sure = self.confidence
        require(0.5 <= sure < 1, "pseudo_labels.confidence", sure, "a probability in [0.5, 1)")
