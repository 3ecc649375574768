"""Starting from a plain-text checkpoint although no id can be read.

Only the embedding knows the vocabulary, so only the embedding, and the decoder tied to it, is
made anew; the rest of the checkpoint is taken as it is. Shapes: V our tokens, W the checkpoint's
tokens, D hidden, K aligned rows. Source: kexue.fm/archives/8213.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from desmatch.data.align import rank_tokens, read_reference_counts, read_reference_vocab
from desmatch.digests import refuse_pickle
from desmatch.errors import UserError
from desmatch.model.configuration import MatchConfig
from desmatch.model.convert import State, read_config, read_state, scale_branches
from desmatch.model.heads import MatchForPairs
from desmatch.runs import read_json_object
from desmatch.schema import Special

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from desmatch.data.vocabulary import Vocabulary
    from desmatch.recipe import ModelConfig
    from desmatch.recipe_training import TrainingConfig

WORDS = "encoder.embeddings.word.weight"
DECODER_BIAS = "mlm_head.bias"
HEADS = ("mlm_head.", "pair_head.", "heat.")


def build_model(
    config: ModelConfig,
    *,
    vocab_size: int,
    max_length: int,
    pretraining: TrainingConfig | None = None,
) -> MatchForPairs:
    """Return a model of the recipe's shape with random weights, from torch's seeded state.

    With `pretraining` it has what that stage needs beside the encoder and its heads.
    """
    return MatchForPairs(
        MatchConfig(
            **_own_settings(config, pretraining),
            vocab_size=vocab_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=max(max_length, 64),
            position=config.position,
            head_act="gelu" if config.position == "rotary" else "tanh",  # as RoFormer and BERT
        )
    )


def _own_settings(config: ModelConfig, pretraining: TrainingConfig | None) -> dict[str, Any]:
    """Return the settings that a recipe decides whether there is a checkpoint or not."""
    decoder = {}
    if pretraining is not None:
        decoder = {name: getattr(pretraining, name) for name in ("heat_fill", "num_heat_layers")}
    names = (
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "norm",
        "deepnorm_rule",
        "initialization",
        "mlm_head_dense",
        "head",
        "pooling",
        "num_dropout_samples",
    )
    return {**{name: getattr(config, name) for name in names}, **decoder}


class Aligned(NamedTuple):
    """A model that starts from a checkpoint, and what was taken over.

    Attributes:
        model: With our vocabulary.
        num_aligned: Ids that took a token's row by frequency rank.
        num_drawn: Rows drawn from the embedding's mean and standard deviation.
        has_mlm_head: Whether the checkpoint brought its MLM head; if not, it is random.
    """

    model: MatchForPairs
    num_aligned: int
    num_drawn: int
    has_mlm_head: bool


def load_aligned(
    config: ModelConfig,
    vocabulary: Vocabulary,
    *,
    rng: np.random.Generator,
    pretraining: TrainingConfig | None = None,
) -> Aligned:
    """Load `config.init` and give it our vocabulary.

    Special tokens keep their rows by name; [NO] and [YES] start from [UNK]. With
    `config.reference_counts` the k-th most frequent id takes the row of the k-th most frequent
    token; without it every id is drawn. What has no row to take is drawn from a normal with the
    embedding's mean and standard deviation in each dimension. What a stage `pretraining` needs
    beside the encoder and its heads starts at random.

    Raises:
        UserError: The checkpoint cannot be read, or its vocabulary does not fit its embedding.
    """
    assert config.init is not None
    folder = Path(config.init)
    settings = read_config(folder)
    reference_vocab = read_reference_vocab(folder / "vocab.txt")
    ranked = np.empty(0, np.int64)
    if config.reference_counts is not None:
        counts = read_reference_counts(Path(config.reference_counts))
        ranked = rank_tokens(reference_vocab, counts)
        if not len(ranked):
            raise UserError(
                f"{config.reference_counts}: counts no token of {folder}/vocab.txt; "
                "give the counts of that checkpoint's tokens"
            )
    if len(reference_vocab) > settings["vocab_size"]:
        raise UserError(
            f"{folder}/vocab.txt: {len(reference_vocab)} tokens, but the embedding has "
            f"{settings['vocab_size']} rows; give the vocabulary of this checkpoint"
        )
    keep = keep_tokens(vocabulary, reference_vocab, ranked)
    state = replace_vocabulary(read_state(folder), keep, rng)
    settings["vocab_size"] = len(keep)
    model = MatchForPairs(MatchConfig(**{**settings, **_own_settings(config, pretraining)}))
    has_mlm_head = _fill(model, state, config, folder)
    num_aligned = min(len(ranked), len(vocabulary.ids))
    return Aligned(model, num_aligned, int((keep < 0).sum()), has_mlm_head)


def _fill(model: MatchForPairs, state: State, config: ModelConfig, folder: Path) -> bool:
    """Give a model a post-norm checkpoint's weights; return whether its MLM head was there."""
    if config.norm == "pre":
        raise UserError(
            f"{folder}: a post-norm checkpoint cannot start a pre-norm model; "
            "set --model.norm post or deepnorm, or leave --model.init out"
        )
    if config.norm == "deepnorm":  # the same function with the straight path alpha times stronger
        state = scale_branches(state, model.config.alpha)
    wanted = model.state_dict()
    fitting = {
        name: tensor
        for name, tensor in state.items()
        if name in wanted  # and of a pair head only what has the shape of ours
        and not (name.startswith("pair_head.") and tensor.shape != wanted[name].shape)
    }
    try:
        missing, _ = model.load_state_dict(fitting, strict=False)
    except RuntimeError as error:
        raise UserError(f"{folder}: config.json does not fit the weights ({error})") from None
    lacking = [name for name in missing if not name.startswith(HEADS)]
    if lacking:
        raise UserError(f"{folder}: the checkpoint lacks {lacking[0]}; give a whole one")
    return "mlm_head.dense.weight" in state


DRAWN = -1
"""In `keep_tokens`: a row that is drawn at random."""


def keep_tokens(
    vocabulary: Vocabulary, reference_vocab: dict[str, int], ranked: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return for each of our tokens the checkpoint's row that seeds it, or DRAWN: (V,).

    Args:
        vocabulary: Ours.
        reference_vocab: Token to row of the checkpoint.
        ranked: (K,), the checkpoint's rows by frequency.
    """
    keep = np.full(vocabulary.size, DRAWN, np.int64)
    unknown = reference_vocab.get(Special.UNK.token, DRAWN)
    for special in Special:
        keep[special] = reference_vocab.get(special.token, unknown)
    aligned = ranked[: len(vocabulary.ids)]
    keep[vocabulary.first_id : vocabulary.first_id + len(aligned)] = aligned
    return keep


def replace_vocabulary(state: State, keep: NDArray[np.int64], rng: np.random.Generator) -> State:
    """Return the state with the embedding (V, D) and the decoder's bias (V,) of `keep`'s rows.

    A checkpoint without an MLM head has no bias; it starts from 0 then.
    """
    old = state[WORDS]  # (W, D)
    old_bias = state.get(DECODER_BIAS, torch.zeros(len(old)))
    taken = torch.from_numpy(keep)
    bias = torch.where(taken >= 0, old_bias[taken.clamp(min=0)], old_bias.mean())
    return {**state, WORDS: _seeded_rows(old, keep, rng), DECODER_BIAS: bias}


def _seeded_rows(old: Tensor, keep: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
    """Return (V, D): the kept rows of `old` (W, D), and drawn ones where `keep` says DRAWN."""
    drawn = np.flatnonzero(keep == DRAWN)
    rows = old[torch.from_numpy(np.maximum(keep, 0))]
    noise = torch.from_numpy(rng.standard_normal((len(drawn), old.shape[1]))).to(old.dtype)
    rows[torch.from_numpy(drawn)] = old.mean(dim=0) + noise * old.std(dim=0)
    return rows


def load_model(folder: Path) -> MatchForPairs:
    """Load what a stage wrote, to the GPU if there is one.

    The decoder of a heat stage stays out: it has served its time.

    Raises:
        UserError: The folder is not one of our models, or it lacks weights.
    """
    refuse_pickle(folder)
    names = ("config.json", "model.safetensors")
    if not all((folder / name).is_file() for name in names):
        raise UserError(f"{folder}: no model (needs {' and '.join(names)}); give a trained stage")
    model_type = read_json_object(folder / "config.json").get("model_type")
    if model_type != MatchConfig.model_type:
        raise UserError(
            f"{folder}/config.json: model_type {model_type!r} is not one of our models; "
            "train from it with --model.init"
        )
    try:
        model, info = MatchForPairs.from_pretrained(
            folder,
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
            heat_fill=None,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{folder}: the model cannot be read ({error}); make or fetch it again"
        ) from None
    if info["missing_keys"]:
        raise UserError(
            f"{folder}: the model lacks {sorted(info['missing_keys'])[0]}; "
            "give the folder of a trained stage"
        )
    return model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[no-any-return]
