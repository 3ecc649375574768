"""Every knob of a run: typed, frozen, checked at birth."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from desmatch.errors import require
from desmatch.recipe_training import DistillConfig, PseudoLabelConfig, TrainingConfig

Initialization = Literal[
    "bert", "arithmetic", "geometric", "quadratic", "fan-in", "fan-out", "deepnorm"
]

Combine = Literal[
    "probability-mean",
    "logit-mean",
    "rank-mean",
    "logit-weights",
    "naive-bayes",
    "naive-bayes-independent",
    "naive-bayes-max",
    "naive-bayes-min-entropy",
    "naive-bayes-attention",
    "selection",
    "stacking",
]

LARGEST_SEED = 2**32 - 1
"""NumPy's generators refuse a larger one."""

MEMBER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
"""A member's name is that of its folder."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How raw ids become token ids, and which rows are made beside the given ones."""

    max_length: int = 32
    """Most tokens of [CLS] a [SEP] b [SEP]; the longer text is cut first."""
    min_count: int = 5
    """Ids seen fewer times in all files together are rare."""
    rare: Literal["unk", "placeholder"] = "unk"
    """A rare id becomes [UNK], or placeholder k: the k-th different rare id of its pair."""
    num_placeholders: int = 8
    """Placeholder tokens in the vocabulary; further rare ids of a pair become [UNK]."""
    augment: Literal["none", "closure"] = "none"
    """Train too on pairs that follow from labelled ones: a = b and b = c give a = c, a = b and
    a != c give b != c; in the ratio of the labels."""
    augment_cap: float = 0.5
    """Most new pairs for each labelled one that trains."""

    def __post_init__(self) -> None:
        """Refuse values without a meaning."""
        require(self.max_length >= 5, "data.max_length", self.max_length, "5 or more")
        require(self.min_count >= 1, "data.min_count", self.min_count, "1 or more")
        require(
            self.num_placeholders >= 1, "data.num_placeholders", self.num_placeholders, "1 or more"
        )
        require(self.augment_cap >= 0, "data.augment_cap", self.augment_cap, "0 or more")


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Which labelled rows are held out, and how sure their figure is."""

    num_folds: int = 10
    """Folds made of whole components of the query graph, held out one at a time."""
    folds: Literal["one", "all"] = "one"
    """Train one model, or one for each fold: then every row is scored by a model that has not
    seen its queries, and a score of the test is the mean of all models."""
    fold: int = 0
    """The fold that is held out where only one is, counted from 0."""
    random_share: float = 0.0
    """Share of the labelled rows that no fold trains on, drawn row by row: where many rows of
    the test have a query that labelled rows have, these show the score such rows will get."""
    num_bootstraps: int = 1000
    """Bootstrap samples of the interval."""
    split_seed: int | None = None
    """Deals the rows to folds and draws the random ones; none: the run's seed. Runs of one
    split_seed hold out the same rows, whatever their seeds."""

    def seed_of_folds(self, seed: int) -> int:
        """Return what deals the folds of a run with this seed."""
        return seed if self.split_seed is None else self.split_seed

    @property
    def trained_folds(self) -> tuple[int, ...]:
        """The folds that are held out, each from a model of its own."""
        return (self.fold,) if self.folds == "one" else tuple(range(self.num_folds))

    def __post_init__(self) -> None:
        """Refuse a fold that does not exist."""
        require(self.num_folds >= 2, "validation.num_folds", self.num_folds, "2 or more")
        is_seed = self.split_seed is None or 0 <= self.split_seed <= LARGEST_SEED
        require(is_seed, "validation.split_seed", self.split_seed, f"0 to {LARGEST_SEED}")
        require(
            0 <= self.fold < self.num_folds,
            "validation.fold",
            self.fold,
            f"0 to {self.num_folds - 1}",
        )
        require(
            0 <= self.random_share <= 0.5,
            "validation.random_share",
            self.random_share,
            "a share in [0, 0.5]",
        )
        require(
            self.num_bootstraps >= 100,
            "validation.num_bootstraps",
            self.num_bootstraps,
            "100 or more",
        )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The encoder; with `init` its shape, positions and activation are the checkpoint's."""

    init: str | None = None
    """Folder of a BERT, RoFormer or NEZHA checkpoint with its vocab.txt; none: random weights."""
    reference_counts: str | None = None
    """JSON file, token to frequency in an open corpus: aligns the embeddings of `init` by rank."""
    position: Literal["absolute", "relative", "rotary"] = "absolute"
    """Positions without `init`: a table (BERT), distances (NEZHA) or rotations (RoFormer)."""
    hidden_size: int = 256
    """Width D."""
    num_hidden_layers: int = 4
    """Number of layers."""
    num_attention_heads: int = 4
    """Heads H of each layer."""
    intermediate_size: int = 1024
    """Width of the feed-forward blocks."""
    hidden_dropout_prob: float = 0.1
    """Dropout after embeddings, attention and feed-forward blocks."""
    attention_probs_dropout_prob: float = 0.1
    """Dropout of the attention's probabilities."""
    norm: Literal["post", "pre", "deepnorm"] = "post"
    """Where the norm stands beside a residual branch; a checkpoint is post or becomes deepnorm."""
    deepnorm_rule: Literal["paper", "adam"] = "paper"
    """Strength of deepnorm's straight path: (2N)^(1/4), or (2N)^(1/2) for Adam; N layers."""
    initialization: Initialization = "bert"
    """How matrices without a checkpoint start: BERT's 0.02, or a variance by their two sides."""
    mlm_head_dense: bool = True
    """Whether the masked-language-model head has its dense layer and norm."""
    head: Literal["label-tokens", "classifier", "naive-bayes"] = "label-tokens"
    """Where a label is read: [NO] or [YES] at [CLS], a classifier of two logits, or the votes of
    all tokens, weighted by attention (kexue.fm/archives/9648)."""
    pooling: Literal["cls", "mean", "cls-mean"] = "cls"
    """What the classifier sees: [CLS], the mean over a pair's tokens, or both side by side."""
    num_dropout_samples: int = 1
    """Dropout masks of a classifier or of naive Bayes in a training step; their losses are
    averaged."""

    def __post_init__(self) -> None:
        """Refuse shapes that no encoder has."""
        require(
            self.hidden_size % self.num_attention_heads == 0,
            "model.hidden_size",
            self.hidden_size,
            f"a multiple of model.num_attention_heads ({self.num_attention_heads})",
        )
        require(
            self.reference_counts is None or self.init is not None,
            "model.reference_counts",
            self.reference_counts,
            "model.init beside it, the checkpoint that is aligned",
        )
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            value = getattr(self, name)
            require(0 <= value < 1, f"model.{name}", value, "a share in [0, 1)")
        samples = self.num_dropout_samples
        require(samples >= 1, "model.num_dropout_samples", samples, "1 or more")


@dataclass(frozen=True, kw_only=True)
class MachineConfig:
    """How the machine is used; changes the speed and the last digits of a result."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Matrix products in bfloat16 where the machine has units for it (auto), always, or never."""
    num_threads: int = 0
    """Threads of torch on the CPU; 0: as OMP_NUM_THREADS says, else one a physical core."""

    dropout: Literal["auto", "exact"] = "auto"
    """On a CPU masks are read from a bank of pre-drawn ones (auto), or always drawn anew."""

    def __post_init__(self) -> None:
        """Refuse a negative number of threads."""
        require(self.num_threads >= 0, "machine.num_threads", self.num_threads, "0 or more")


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What a score is made of beside the models' logits."""

    closure: bool = False
    """Whether the answer that follows from labelled pairs (a = b and b = c give a = c) is added
    where the test has such rows: one more view, weighed by how often such answers are right."""


Tracker = Literal["none", "tensorboard", "mlflow", "wandb"]


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Who else is told how training goes; changes nothing of a result."""

    report_to: Tracker | tuple[Tracker, ...] = "none"
    """Where loss and validation AUC are shown while a stage trains: tensorboard (its files lie in
    RUN/logs), mlflow or wandb (as their own settings say), or several of them."""

    @property
    def trackers(self) -> tuple[str, ...]:
        """Names of the trackers, without `none`."""
        names = (self.report_to,) if isinstance(self.report_to, str) else self.report_to
        return tuple(name for name in names if name != "none")


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """How several members become one."""

    combine: Combine = "probability-mean"
    """What a score of several members is; all but the means are fitted on the held-out rows. The
    rank mean and stacking score the run's test alone, not other pairs."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a run, its data aside."""

    seed: int = 0
    """Decides every random choice."""
    data: DataConfig = field(default_factory=DataConfig)
    """How raw ids become token ids, and which rows are made beside the given ones."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """Which labelled rows are held out."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The encoder and where it starts from."""
    mlm: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(num_train_epochs=0.0, keep="last")
    )
    """Masked tokens of all rows and no label, so done once for all folds; off by default."""
    distill: DistillConfig = field(default_factory=DistillConfig)
    """The finished run whose probabilities train beside the labels, if there is one."""
    pretrain: TrainingConfig = field(default_factory=TrainingConfig)
    """The joint stage: masked tokens of all rows, label tokens of labelled rows."""
    pseudo_labels: PseudoLabelConfig = field(default_factory=PseudoLabelConfig)
    """Rounds of training on the model's own labels."""
    finetune: TrainingConfig = field(default_factory=lambda: TrainingConfig(mlm_probability=0.0))
    """The last stage: labelled rows alone."""
    predict: PredictConfig = field(default_factory=PredictConfig)
    """What a score is made of beside the models' logits."""
    machine: MachineConfig = field(default_factory=MachineConfig)
    """How the machine is used."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Who else is told how training goes."""
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    """How members, if there are any, become one."""
    members: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name to what differs from this recipe, as `data.min_count: 5`: each is a whole run of its
    own, of the same folds, and the run itself combines them; none: one run, no ensemble."""

    @property
    def last_training(self) -> TrainingConfig:
        """The stage that a model ends with, pseudo-labels aside."""
        return self.finetune if self.finetune.num_train_epochs else self.pretrain

    def __post_init__(self) -> None:
        """Refuse seeds and names without a meaning, and heat outside of pretraining."""
        require(0 <= self.seed <= LARGEST_SEED, "seed", self.seed, f"0 to {LARGEST_SEED}")
        require(len(self.members) != 1, "members", list(self.members), "two or more, or none")
        for name in self.members:
            is_name = isinstance(name, str) and MEMBER_NAME.fullmatch(name) is not None
            require(is_name, "members", name, "names of letters, digits, - and _")
        self._check_stages()

    def _check_stages(self) -> None:
        """Refuse stages that lead to no score, and objectives that a stage does not have."""
        mlm, pretrain = self.mlm, self.pretrain
        is_taught_once = self.distill.teacher is None or self.pseudo_labels.rounds == 0
        rounds = self.pseudo_labels.rounds
        require(is_taught_once, "pseudo_labels.rounds", rounds, "0 with distill.teacher")
        learns = pretrain.num_train_epochs > 0 or self.finetune.num_train_epochs > 0
        require(learns, "finetune.num_train_epochs", 0, "more than 0 here or in pretrain")
        require(mlm.keep == "last", "mlm.keep", mlm.keep, "last: without labels there is no AUC")
        require(mlm.mlm_probability > 0, "mlm.mlm_probability", 0, "more than 0")
        is_alone = pretrain.objective == "mlm" or mlm.num_train_epochs == 0
        require(is_alone, "pretrain.objective", "heat", "mlm after a stage mlm")
        others = {
            "mlm": mlm,
            "finetune": self.finetune,
            "pseudo_labels.training": self.pseudo_labels.training,
        }
        for name, stage in others.items():  # the decoder does not leave the stage it was made for
            is_mlm = stage.objective == "mlm"
            require(is_mlm, f"{name}.objective", stage.objective, "mlm (heat is for pretrain)")
