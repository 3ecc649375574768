"""Starting from a plain-text checkpoint although no id can be read.

Only the embedding knows the vocabulary, so only the embedding, and the decoder tied to it, is
made anew; the rest of the checkpoint is taken as it is. Shapes: V our tokens, W the checkpoint's
tokens, D hidden, K aligned rows. Source: kexue.fm/archives/8213.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from desmatch.data.align import rank_tokens, read_reference_counts, read_reference_vocab
from desmatch.errors import UserError
from desmatch.model.masked_lm import checkpoint_type, read_checkpoint
from desmatch.schema import Special

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from desmatch.data.vocabulary import Vocabulary
    from desmatch.recipe import ModelConfig


class Aligned(NamedTuple):
    """A model that starts from a checkpoint, and what was taken over.

    Attributes:
        model: With our vocabulary.
        num_aligned: Ids that took a token's row by frequency rank.
        num_drawn: Rows drawn from the embedding's mean and standard deviation.
        has_mlm_head: Whether the checkpoint brought its MLM head; if not, it is random.
    """

    model: PreTrainedModel
    num_aligned: int
    num_drawn: int
    has_mlm_head: bool


def load_aligned(
    config: ModelConfig, vocabulary: Vocabulary, *, rng: np.random.Generator
) -> Aligned:
    """Load `config.init` and give it our vocabulary.

    Special tokens keep their rows by name; [NO] and [YES] start from [UNK]. With
    `config.reference_counts` the k-th most frequent id takes the row of the k-th most frequent
    token; without it every id is drawn. What has no row to take is drawn from a normal with the
    embedding's mean and standard deviation in each dimension.

    Raises:
        UserError: The checkpoint cannot be read, or its vocabulary does not fit its embedding.
    """
    assert config.init is not None
    folder = Path(config.init)
    checkpoint_type(folder)
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
    plain, info = read_checkpoint(
        folder,
        hidden_dropout_prob=config.hidden_dropout_prob,
        attention_probs_dropout_prob=config.attention_probs_dropout_prob,
    )
    plain_rows = plain.get_input_embeddings().weight.shape[0]
    if len(reference_vocab) > plain_rows:
        raise UserError(
            f"{folder}/vocab.txt: {len(reference_vocab)} tokens, but the embedding has "
            f"{plain_rows} rows; give the vocabulary of this checkpoint"
        )
    keep = keep_tokens(vocabulary, reference_vocab, ranked)
    _replace_vocabulary(plain, keep, rng)
    missing = [name for name in info["missing_keys"] if "transform" in name]
    num_aligned = min(len(ranked), len(vocabulary.ids))
    return Aligned(plain, num_aligned, int((keep < 0).sum()), not missing)


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


def _replace_vocabulary(
    model: PreTrainedModel, keep: NDArray[np.int64], rng: np.random.Generator
) -> None:
    """Give the embedding, the tied decoder and its bias the rows of `keep`, in place."""
    old = model.get_input_embeddings().weight.detach().clone()  # (W, D)
    head = model.get_output_embeddings()
    old_bias = head.bias.detach().clone()  # (W,)
    model.resize_token_embeddings(len(keep), mean_resizing=False)
    with torch.no_grad():
        rows = _seeded_rows(old, keep, rng)
        model.get_input_embeddings().weight.copy_(rows)
        taken = torch.from_numpy(keep)
        head = model.get_output_embeddings()
        head.weight.copy_(rows)
        head.bias.copy_(torch.where(taken >= 0, old_bias[taken.clamp(min=0)], old_bias.mean()))
    model.tie_weights()
    model.config.pad_token_id = int(Special.PAD)


def _seeded_rows(old: Tensor, keep: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
    """Return (V, D): the kept rows of `old` (W, D), and drawn ones where `keep` says DRAWN."""
    drawn = np.flatnonzero(keep == DRAWN)
    rows = old[torch.from_numpy(np.maximum(keep, 0))]
    noise = torch.from_numpy(rng.standard_normal((len(drawn), old.shape[1]))).to(old.dtype)
    rows[torch.from_numpy(drawn)] = old.mean(dim=0) + noise * old.std(dim=0)
    return rows
