"""A trained model in a form that other tools load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from desmatch.data.vocabulary import Vocabulary
from desmatch.errors import UserError
from desmatch.model.checkpoints import load_model
from desmatch.model.convert import to_hugging_face
from desmatch.runs import atomic_folder

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
    if out.exists():
        raise UserError(f"{out}: is there already; name a new folder, or delete that one")
    plain = to_hugging_face(load_model(model_folder))
    vocabulary = Vocabulary.load(model_folder)
    with atomic_folder(out) as partial:
        plain.save_pretrained(partial)
        vocabulary.save(partial)
    return type(plain).__name__
