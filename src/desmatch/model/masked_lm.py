"""The seam to the encoder: a masked language model with logits at chosen positions alone.

Whoever brings another encoder gives it this `forward` and an entry in `ARCHITECTURES`.
Shapes: B pairs, L tokens, P chosen positions, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
    RoFormerConfig,
    RoFormerForMaskedLM,
)
from transformers.modeling_outputs import MaskedLMOutput

from desmatch.errors import UserError
from desmatch.runs import read_json, write_json
from desmatch.schema import Special

if TYPE_CHECKING:
    from pathlib import Path

    from desmatch.recipe import ModelConfig


class ChosenPositions:
    """Replaces a masked language model's forward pass: the head runs where it is asked to.

    Some 17 % of the tokens are predicted; the head over all of them would cost a sixth of the
    step at a width of 384.
    """

    accepts_loss_kwargs = False

    def forward(
        self: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        positions: Tensor,
    ) -> MaskedLMOutput:
        """Return the logits (P, V) at `positions`.

        Args:
            input_ids: (B, L), int64.
            attention_mask: (B, L), int64.
            positions: (P,), int64, into the flattened (B * L,).
        """
        hidden = self.base_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=torch.zeros_like(input_ids),
        )[0]
        chosen = hidden.flatten(0, 1).index_select(0, positions)
        return MaskedLMOutput(logits=self.cls(chosen))


class PairBertForMaskedLM(ChosenPositions, BertForMaskedLM):  # type: ignore[misc]
    """BERT: absolute positions."""


class PairRoFormerForMaskedLM(ChosenPositions, RoFormerForMaskedLM):  # type: ignore[misc]
    """RoFormer: rotary positions (arXiv 2104.09864)."""


ARCHITECTURES: dict[str, tuple[type[PreTrainedConfig], type[PreTrainedModel]]] = {
    "bert": (BertConfig, PairBertForMaskedLM),
    "roformer": (RoFormerConfig, PairRoFormerForMaskedLM),
}
"""`model_type` of a checkpoint's config.json to the classes that read it."""


def build_model(config: ModelConfig, *, vocab_size: int, max_length: int) -> PreTrainedModel:
    """Return an encoder of the recipe's shape with random weights, from torch's seeded state."""
    config_class, model_class = ARCHITECTURES[config.architecture]
    return model_class(
        config_class(
            vocab_size=vocab_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=config.intermediate_size,
            hidden_dropout_prob=config.hidden_dropout_prob,
            attention_probs_dropout_prob=config.attention_probs_dropout_prob,
            max_position_embeddings=max(max_length, 64),
            type_vocab_size=2,
            pad_token_id=int(Special.PAD),
            layer_norm_eps=1e-12,
        )
    )


def checkpoint_type(folder: Path) -> str:
    """Return the `model_type` of a checkpoint folder.

    Raises:
        UserError: The folder is not a checkpoint, or of an architecture we do not read.
    """
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder}: has no {name}; a checkpoint folder holds config.json, "
                "model.safetensors and vocab.txt (pickled weights are not read)"
            )
    model_type = read_json(folder / "config.json").get("model_type")
    if model_type not in ARCHITECTURES:
        raise UserError(
            f"{folder}/config.json: model_type {model_type!r} is not read; "
            f"use one of {', '.join(ARCHITECTURES)}"
        )
    return str(model_type)


def read_checkpoint(folder: Path, **settings: Any) -> tuple[PreTrainedModel, dict[str, Any]]:  # noqa: ANN401
    """Read a checkpoint into the class of its `model_type`, and what it lacked.

    Args:
        folder: config.json and model.safetensors.
        settings: Values of the config that replace the checkpoint's.

    Raises:
        UserError: The folder is not a checkpoint or its weights cannot be read.
    """
    _, model_class = ARCHITECTURES[checkpoint_type(folder)]
    try:
        model, info = model_class.from_pretrained(
            folder,
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
            **settings,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{folder}: the checkpoint cannot be read ({error}); make or fetch it again"
        ) from None
    return model, info


def load_model(folder: Path) -> PreTrainedModel:
    """Load what `save_model` wrote.

    Raises:
        UserError: The folder is not a checkpoint, or it lacks weights.
    """
    model, info = read_checkpoint(folder)
    if info["missing_keys"]:
        raise UserError(
            f"{folder}: the checkpoint lacks {sorted(info['missing_keys'])[0]}; "
            "give the folder of a trained stage"
        )
    return model


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Write config.json and model.safetensors under the plain class's name, for any tool."""
    model.save_pretrained(folder)
    config = read_json(folder / "config.json")
    config["architectures"] = [type(model).__name__.removeprefix("Pair")]
    write_json(folder / "config.json", config)
