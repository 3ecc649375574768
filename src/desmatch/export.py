"""Trained models in a form that other tools load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from desmatch.data.vocabulary import Vocabulary
from desmatch.model.checkpoints import load_model
from desmatch.model.convert import to_hugging_face
from desmatch.model.graph import write_program
from desmatch.runs import atomic_folder, require_new

if TYPE_CHECKING:
    from pathlib import Path


def export_hugging_face(model_folder: Path, out: Path) -> str:
    """Write the same function as a plain model of transformers, its tokenizer beside it.

    Args:
        model_folder: A stage that trained.
        out: A folder that is not there yet.

    Returns:
        The name of transformers' class.

    Raises:
        UserError: `out` is there, or transformers has no class for the architecture.
    """
    require_new(out)
    plain = to_hugging_face(load_model(model_folder))
    vocabulary = Vocabulary.load(model_folder)
    with atomic_folder(out) as partial:
        plain.save_pretrained(partial)
        vocabulary.save(partial)
    return type(plain).__name__


def export_torch(model_folder: Path, out: Path) -> str:
    """Write a model as a program of `torch.export`, its tokenizer and vocabulary beside it.

    `torch.export.load(out / "model.pt2").module()` takes (B, L) ids and mask, and gives (B, 1)
    logits; it needs torch alone.

    Args:
        model_folder: A stage that trained.
        out: A folder that is not there yet.

    Returns:
        What it is, in words.

    Raises:
        UserError: `out` is there.
    """
    require_new(out)
    model = load_model(model_folder).cpu()
    with atomic_folder(out) as partial:
        write_program(model, partial / "model.pt2")
        Vocabulary.load(model_folder).save(partial)
    return "program of torch.export"
