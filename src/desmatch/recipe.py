"""Every knob of a run: typed, frozen, checked at birth, read from YAML files of differences."""

from __future__ import annotations

import dataclasses
from argparse import ArgumentError
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

import yaml

from desmatch.errors import UserError, listed, nearest

RECIPES = Path(__file__).parent / "recipes"
"""The recipes that are part of the package, one YAML file each."""

Schedule = Literal[
    "linear", "cosine", "constant", "constant_with_warmup", "inverse_time", "inverse_square"
]

Initialization = Literal[
    "bert", "arithmetic", "geometric", "quadratic", "fan-in", "fan-out", "deepnorm"
]

Fill = Literal["linear", "mask", "copy", "extrapolate"]


def _require(condition: bool, name: str, value: object, expected: str) -> None:
    if not condition:
        raise ValueError(f"{name}: expected {expected}, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How raw ids become token ids."""

    max_length: int = 32
    """Most tokens of [CLS] a [SEP] b [SEP]; the longer text is cut first."""
    min_count: int = 5
    """Ids seen fewer times in all files together are rare."""
    rare: Literal["unk", "placeholder"] = "unk"
    """A rare id becomes [UNK], or placeholder k: the k-th different rare id of its pair."""
    num_placeholders: int = 8
    """Placeholder tokens in the vocabulary; further rare ids of a pair become [UNK]."""

    def __post_init__(self) -> None:
        """Refuse values without a meaning."""
        _require(self.max_length >= 5, "data.max_length", self.max_length, "5 or more")
        _require(self.min_count >= 1, "data.min_count", self.min_count, "1 or more")
        _require(
            self.num_placeholders >= 1, "data.num_placeholders", self.num_placeholders, "1 or more"
        )


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

    @property
    def trained_folds(self) -> tuple[int, ...]:
        """The folds that are held out, each from a model of its own."""
        return (self.fold,) if self.folds == "one" else tuple(range(self.num_folds))

    def __post_init__(self) -> None:
        """Refuse a fold that does not exist."""
        _require(self.num_folds >= 2, "validation.num_folds", self.num_folds, "2 or more")
        _require(
            0 <= self.fold < self.num_folds,
            "validation.fold",
            self.fold,
            f"0 to {self.num_folds - 1}",
        )
        _require(
            0 <= self.random_share <= 0.5,
            "validation.random_share",
            self.random_share,
            "a share in [0, 0.5]",
        )
        _require(
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
    head: Literal["label-tokens", "classifier"] = "label-tokens"
    """Where a label is read: [NO] or [YES] at [CLS], or a classifier of two logits."""
    pooling: Literal["cls", "mean", "cls-mean"] = "cls"
    """What the classifier sees: [CLS], the mean over a pair's tokens, or both side by side."""
    num_dropout_samples: int = 1
    """Dropout masks of the classifier in a training step; their losses are averaged."""

    def __post_init__(self) -> None:
        """Refuse shapes that no encoder has."""
        _require(
            self.hidden_size % self.num_attention_heads == 0,
            "model.hidden_size",
            self.hidden_size,
            f"a multiple of model.num_attention_heads ({self.num_attention_heads})",
        )
        _require(
            self.reference_counts is None or self.init is not None,
            "model.reference_counts",
            self.reference_counts,
            "model.init beside it, the checkpoint that is aligned",
        )
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"model.{name}", value, "a share in [0, 1)")
        samples = self.num_dropout_samples
        _require(samples >= 1, "model.num_dropout_samples", samples, "1 or more")


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
            _require(0 <= getattr(self, name) < 1, f"amos.{name}", getattr(self, name), "in [0, 1)")
        _require(self.initial_b >= 0, "amos.initial_b", self.initial_b, "0 or more")


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
            _require(getattr(self, name) > 0, f"adversarial.{name}", getattr(self, name), "above 0")
        _require(self.num_steps >= 1, "adversarial.num_steps", self.num_steps, "1 or more")


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
        _require(0 < self.decay < 1, "average.decay", self.decay, "in (0, 1)")
        for name in ("last", "every"):
            _require(getattr(self, name) >= 1, f"average.{name}", getattr(self, name), "1 or more")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One training stage."""

    num_train_epochs: float = 1.0
    """Passes over the rows of the stage; 0 leaves the stage out."""
    batch_size: int = 64
    """Pairs a step and process."""
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
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        for name in ("batch_size", "num_evaluations"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("mlm_probability", "swap_probability", "warmup_ratio"):
            value = getattr(self, name)
            _require(value is None or 0 <= value < 1, name, value, "a share in [0, 1)")
        for name in ("learning_rate", "max_grad_norm"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "more than 0")
        _require(0 < self.layer_decay <= 1, "layer_decay", self.layer_decay, "in (0, 1]")
        smoothing, patience = self.label_smoothing, self.early_stopping_patience
        _require(0 <= smoothing < 1, "label_smoothing", smoothing, "a share in [0, 1)")
        _require(self.r_drop_weight >= 0, "r_drop_weight", self.r_drop_weight, "0 or more")
        is_sound = patience == 0 or (patience > 0 and self.keep == "best")
        _require(is_sound, "early_stopping_patience", patience, "0, or more with keep best")
        layers, share = self.num_heat_layers, self.mlm_probability
        _require(layers in (1, 2), "num_heat_layers", layers, "1 or 2")
        has_tokens = self.objective == "mlm" or share > 0
        _require(has_tokens, "mlm_probability", share, "more than 0 with the objective heat")

    @property
    def heat_fill(self) -> Fill | None:
        """The fill where the objective is heat, else none."""
        return self.fill if self.objective == "heat" else None


@dataclass(frozen=True, kw_only=True)
class PseudoLabelConfig:
    """Training goes on with labels that the model itself is sure of."""

    rounds: int = 0
    """Times that unlabelled rows are labelled and trained on; 0: never."""
    share: float = 0.5
    """Share of the unlabelled rows that is labelled: the surest ones, in the classes' ratio."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """The joint training of a round; the fine-tuning stage follows it."""

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        _require(self.rounds >= 0, "pseudo_labels.rounds", self.rounds, "0 or more")
        _require(0 < self.share <= 1, "pseudo_labels.share", self.share, "a share in (0, 1]")


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
        _require(self.num_threads >= 0, "machine.num_threads", self.num_threads, "0 or more")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a run, its data aside."""

    seed: int = 0
    """Decides every random choice."""
    data: DataConfig = field(default_factory=DataConfig)
    """How raw ids become token ids."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """Which labelled rows are held out."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The encoder and where it starts from."""
    pretrain: TrainingConfig = field(default_factory=TrainingConfig)
    """The joint stage: masked tokens of all rows, label tokens of labelled rows."""
    pseudo_labels: PseudoLabelConfig = field(default_factory=PseudoLabelConfig)
    """Rounds of training on the model's own labels."""
    finetune: TrainingConfig = field(default_factory=lambda: TrainingConfig(mlm_probability=0.0))
    """The last stage: labelled rows alone."""
    machine: MachineConfig = field(default_factory=MachineConfig)
    """How the machine is used."""

    def __post_init__(self) -> None:
        """Refuse a seed that NumPy's generators refuse, and heat outside of pretraining."""
        _require(0 <= self.seed < 2**32, "seed", self.seed, "0 to 4294967295")
        later = {"finetune": self.finetune, "pseudo_labels.training": self.pseudo_labels.training}
        for name, stage in later.items():  # the decoder does not leave the stage it was made for
            is_mlm = stage.objective == "mlm"
            _require(is_mlm, f"{name}.objective", stage.objective, "mlm (heat is for pretrain)")


def recipe_names() -> list[str]:
    """Return the names of the recipes in the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """Return the file of a recipe, given by its name in the package or by a path.

    Raises:
        UserError: There is neither; the message names the nearest recipe.
    """
    inside = RECIPES / f"{name}.yaml"
    if inside.is_file():
        return inside
    if name.endswith((".yaml", ".yml")):
        if Path(name).is_file():
            return Path(name)
        raise UserError(f"--recipe {name}: no such file")
    names = recipe_names()
    raise UserError(
        f"--recipe {name}: no recipe of that name{nearest(name, names)}"
        f"\nRecipes: {', '.join(names)}; or give a file that ends in .yaml"
    )


def flat_keys(config: type, prefix: str = "") -> Iterator[str]:
    """Yield the dotted name of every value of a dataclass of dataclasses."""
    hints = get_type_hints(config)
    for each in dataclasses.fields(config):
        name = f"{prefix}{each.name}"
        yield name
        if dataclasses.is_dataclass(hints[each.name]):
            yield from flat_keys(hints[each.name], f"{name}.")


def unknown_keys(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of nested `values` that no recipe has."""
    known = set(flat_keys(Recipe))
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name not in known:
            yield name
        elif isinstance(value, Mapping):
            yield from unknown_keys(value, f"{name}.")


def read_recipe_values(path: Path) -> dict[str, Any]:
    """Read a recipe's YAML file of differences from the defaults.

    Raises:
        UserError: Not YAML, not a mapping, or a key that no recipe has, with the nearest one.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}:1: expected keys and values, got {type(values).__name__}")
    known = list(flat_keys(Recipe))
    problems = [f"{path}: unknown key {key!r}{nearest(key, known)}" for key in unknown_keys(values)]
    if problems:
        raise UserError(listed(problems))
    return values


def recipe_to_yaml(recipe: Recipe) -> str:
    """Return all values of a recipe as YAML."""
    return str(yaml.safe_dump(dataclasses.asdict(recipe), sort_keys=False, allow_unicode=True))


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return a recipe: the file's values over the defaults, `overrides` over both.

    Args:
        path: YAML file of differences from the defaults.
        overrides: Command-line words such as `--pretrain.learning_rate 1e-3`.

    Raises:
        UserError: An unknown key or a value that does not fit; the message names the key and,
            where a key is unknown, the nearest one.
    """
    _refuse_unknown_options(overrides)
    read_recipe_values(path)
    parser = recipe_parser(path)
    try:
        values = parser.instantiate(parser.parse_args(list(overrides)))
        return Recipe(**{each.name: values[each.name] for each in dataclasses.fields(Recipe)})
    except (ArgumentError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"recipe {path.name}: {reason}") from None


def recipe_parser(path: Path) -> Any:  # noqa: ANN401 - of jsonargparse
    """Return a parser with one option for every value of a recipe, defaults read from `path`."""
    from jsonargparse import ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        default_config_files=[str(path)], exit_on_error=False, add_help=False, usage=""
    )
    parser.add_class_arguments(Recipe, nested_key=None, fail_untyped=True)
    return parser


def _refuse_unknown_options(overrides: Sequence[str]) -> None:
    known = list(flat_keys(Recipe))
    problems = []
    for word in overrides:
        name = word.split("=", 1)[0]
        if name.startswith("--") and name[2:] not in known:
            problems.append(f"{name}: no such option{nearest(name[2:], known)}")
    if overrides and not overrides[0].startswith("--"):
        problems.insert(0, f"{overrides[0]}: not expected here")
    if problems:
        raise UserError(listed(problems))
