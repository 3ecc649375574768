"""Weights between Hugging Face's names and ours, both ways.

Shapes: D hidden, H heads of width d.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    PreTrainedModel,
    RoFormerConfig,
    RoFormerForMaskedLM,
    RoFormerForSequenceClassification,
)

from desmatch.digests import refuse_pickle
from desmatch.errors import UserError
from desmatch.model.positions import MAX_DISTANCE
from desmatch.runs import read_json_object

if TYPE_CHECKING:
    from pathlib import Path

    from desmatch.model.configuration import MatchConfig
    from desmatch.model.heads import MatchForPairs

State = dict[str, Tensor]

POSITIONS = {"bert": "absolute", "roformer": "rotary", "nezha": "relative"}
"""`model_type` of a checkpoint that is read to our kind of position."""

OUTSIDE_LAYERS = {
    "embeddings.word_embeddings": "encoder.embeddings.word",
    "embeddings.position_embeddings": "encoder.embeddings.position",
    "embeddings.token_type_embeddings": "encoder.embeddings.token_type",
    "embeddings.LayerNorm": "encoder.embeddings.norm",
    "cls.predictions.transform.dense": "mlm_head.dense",
    "cls.predictions.transform.LayerNorm": "mlm_head.norm",
    "cls.predictions": "mlm_head",
}
INSIDE_LAYERS = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "feed_forward.expand",
    "output.dense": "feed_forward.contract",
    "output.LayerNorm": "feed_forward_norm",
}
CLASSIFIERS = {
    "bert": {"pooler.dense": "pair_head.dense", "classifier": "pair_head.output"},
    "roformer": {"classifier.dense": "pair_head.dense", "classifier.out_proj": "pair_head.output"},
}
"""Their stems of a name to ours; `weight` or `bias` follows."""

OLD_KINDS = {"gamma": "weight", "beta": "bias"}
"""Names of a norm's parameters in checkpoints that came from TensorFlow."""

COPIED = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "max_position_embeddings",
    "type_vocab_size",
    "layer_norm_eps",
    "vocab_size",
)
"""Settings that mean the same in their configs and in ours."""


def read_config(folder: Path) -> dict[str, Any]:
    """Return a checkpoint's settings under our names.

    Raises:
        UserError: The folder is not a checkpoint, or of an architecture we do not have.
    """
    refuse_pickle(folder)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder}: has no {name}; a checkpoint folder holds config.json, "
                "model.safetensors and vocab.txt"
            )
    theirs = read_json_object(folder / "config.json")
    if theirs.get("model_type") not in POSITIONS:
        raise UserError(
            f"{folder}/config.json: model_type {theirs.get('model_type')!r} is not read; "
            f"use one of {', '.join(POSITIONS)}"
        )
    _refuse_variants(folder, theirs)
    defaults = BertConfig()
    settings = {name: theirs.get(name, getattr(defaults, name)) for name in COPIED}
    act = settings["hidden_act"] if theirs["model_type"] == "roformer" else "tanh"
    return {**settings, "position": POSITIONS[theirs["model_type"]], "head_act": act}


def _refuse_variants(folder: Path, theirs: dict[str, Any]) -> None:
    """Refuse settings of their configs that change the function and that ours cannot express."""
    expected = {
        "position_embedding_type": "absolute",
        "rotary_value": False,
        "embedding_size": theirs.get("hidden_size"),
        "max_relative_position": MAX_DISTANCE,
    }
    for name, value in expected.items():
        if theirs.get(name, value) != value:
            raise UserError(
                f"{folder}/config.json: {name} {theirs[name]!r} is not read; only {value!r} is"
            )


def read_state(folder: Path) -> State:
    """Return a checkpoint's weights under our names, fp32.

    Raises:
        UserError: The weights cannot be read.
    """
    try:
        theirs = load_file(folder / "model.safetensors")
        settings = read_config(folder)
        return to_ours(
            {name: tensor.float() for name, tensor in theirs.items()},
            num_heads=settings["num_attention_heads"],
            is_rotary=settings["position"] == "rotary",
        )
    except (OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{folder}: the checkpoint cannot be read ({error}); make or fetch it again"
        ) from None


def to_ours(theirs: State, *, num_heads: int, is_rotary: bool) -> State:
    """Rename their weights, join query, key and value, and order rotary dimensions in halves.

    What we have no place for (poolers of a masked language model, next-sentence heads, buffers)
    is left out.
    """
    renamed = {}
    for name, tensor in theirs.items():
        ours = _our_name(re.sub(r"^(bert|roformer|nezha)\.", "", name))
        if ours is not None:
            renamed[ours] = tensor
    for name in [name for name in renamed if ".attention.query." in name]:
        parts = [renamed.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        if is_rotary:
            parts[:2] = [in_halves(part, num_heads) for part in parts[:2]]
        renamed[name.replace("query", "qkv")] = torch.cat(parts)
    return renamed


def _our_name(name: str) -> str | None:
    stem, _, kind = name.rpartition(".")
    kind = OLD_KINDS.get(kind, kind)
    inside = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", stem)
    if inside and inside[2] in INSIDE_LAYERS:
        return f"encoder.layers.{inside[1]}.{INSIDE_LAYERS[inside[2]]}.{kind}"
    outside = OUTSIDE_LAYERS | CLASSIFIERS["bert"] | CLASSIFIERS["roformer"]
    return f"{outside[stem]}.{kind}" if stem in outside else None


def in_halves(tensor: Tensor, num_heads: int) -> Tensor:
    """Reorder each head's rows from pairs (0, 1), (2, 3) .. to halves: evens, then odds.

    Attention sees queries and keys through their product alone, which is the same for one order of
    both; with halves a rotation works on stretches of memory. (D, ...) to (D, ...).
    """
    heads = tensor.view(num_heads, -1, 2, *tensor.shape[1:])
    return heads.transpose(1, 2).reshape(tensor.shape)


def in_pairs(tensor: Tensor, num_heads: int) -> Tensor:
    """Undo `in_halves`."""
    heads = tensor.view(num_heads, 2, -1, *tensor.shape[1:])
    return heads.transpose(1, 2).reshape(tensor.shape)


def scale_branches(state: State, factor: float) -> State:
    """Multiply the last matrix and bias of every residual branch; the rest is left as it is.

    norm(alpha x + F(x)) equals norm(x + F(x) / alpha), so by `alpha` a post-norm model becomes a
    deepnorm model with the same function, and by 1 / alpha the other way round
    (kexue.fm/archives/8994).
    """
    last = re.compile(r"\.(attention\.output|feed_forward\.contract)\.(weight|bias)$")
    return {
        name: tensor * factor if last.search(name) else tensor for name, tensor in state.items()
    }


def to_hugging_face(model: MatchForPairs) -> PreTrainedModel:
    """Return the same function as a plain model of transformers.

    A model with label tokens becomes `BertForMaskedLM` or `RoFormerForMaskedLM`, one with a
    classifier `BertForSequenceClassification` or `RoFormerForSequenceClassification`.

    Raises:
        UserError: transformers has no class for the architecture.
    """
    config = model.config
    family = {"absolute": "bert", "rotary": "roformer"}.get(config.position)
    _require_theirs(config, family)
    assert family is not None
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    if config.norm == "deepnorm":
        state = scale_branches(state, 1 / config.alpha)
    their_config, masked_lm, classifier = {
        "bert": (BertConfig, BertForMaskedLM, BertForSequenceClassification),
        "roformer": (RoFormerConfig, RoFormerForMaskedLM, RoFormerForSequenceClassification),
    }[family]
    settings = {name: getattr(config, name) for name in (*COPIED, "hidden_dropout_prob",
                "attention_probs_dropout_prob", "pad_token_id")}  # fmt: skip
    plain = (masked_lm if model.pair_head is None else classifier)(their_config(**settings))
    theirs = _to_theirs(state, family, config)
    missing, unexpected = plain.load_state_dict(theirs, strict=False)
    assert not unexpected
    assert all(re.search(r"position|decoder", name) for name in missing), missing
    plain.tie_weights()
    return plain.eval()


def _require_theirs(config: MatchConfig, family: str | None) -> None:
    act = {"bert": "tanh", "roformer": config.hidden_act}.get(family or "")
    problems = {
        f"position {config.position}": family is None,
        f"norm {config.norm}": config.norm == "pre",
        "a naive Bayes head": config.head == "naive-bayes",
        "an MLM head without its dense layer": config.head == "label-tokens"
        and not config.mlm_head_dense,
        f"a classifier over {config.pooling} with {config.head_act}": config.head == "classifier"
        and (config.pooling != "cls" or config.head_act != act),
    }
    for what, is_problem in problems.items():
        if is_problem:
            raise UserError(
                f"transformers has no model with {what}; --to onnx and --to torch write any"
            )


def _to_theirs(state: State, family: str, config: MatchConfig) -> State:
    """Rename and split our weights for the family's class with the model's head."""
    is_masked_lm = config.head == "label-tokens"
    outside = OUTSIDE_LAYERS | ({} if is_masked_lm else CLASSIFIERS[family])
    stems = {ours: theirs for theirs, ours in outside.items()}
    inside = {ours: theirs for theirs, ours in INSIDE_LAYERS.items()}
    theirs = {}
    for name, tensor in _split_qkv(state, config).items():
        stem, _, kind = name.rpartition(".")
        in_layer = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", stem)
        if in_layer:
            stem = f"{family}.encoder.layer.{in_layer[1]}.{inside[in_layer[2]]}"
        elif stem not in stems or (stem.startswith("mlm_head") and not is_masked_lm):
            continue
        else:
            has_prefix = stems[stem].startswith(("embeddings", "pooler"))
            stem = f"{family}.{stems[stem]}" if has_prefix else stems[stem]
        theirs[f"{stem}.{kind}"] = tensor
    if is_masked_lm:
        theirs["cls.predictions.decoder.bias"] = theirs["cls.predictions.bias"]
    return theirs


def _split_qkv(state: State, config: MatchConfig) -> State:
    split = {}
    for name, tensor in state.items():
        if ".qkv." not in name:
            split[name] = tensor
            continue
        parts = list(tensor.chunk(3))
        if config.position == "rotary":
            parts[:2] = [in_pairs(part, config.num_attention_heads) for part in parts[:2]]
        for part, values in zip(("query", "key", "value"), parts, strict=True):
            split[name.replace("qkv", part)] = values.contiguous()
    return split
