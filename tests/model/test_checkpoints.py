from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    RoFormerConfig,
    RoFormerForMaskedLM,
)

from desmatch.data.vocabulary import fit_vocabulary
from desmatch.errors import UserError
from desmatch.model.checkpoints import DRAWN, keep_tokens, load_aligned
from desmatch.model.masked_lm import load_model, save_model
from desmatch.recipe import DataConfig, ModelConfig
from desmatch.runs import seed_everything
from desmatch.schema import Special

PLAIN = [
    "[PAD]",
    "[unused1]",
    "[UNK]",
    "[MASK]",
    "[CLS]",
    "[SEP]",
    *(chr(97 + i) for i in range(20)),
]
COUNTS = {token: (index * 7) % 23 + 1 for index, token in enumerate(PLAIN[6:])}
"""Distinct counts: 7 and 23 have no common factor."""


def write_checkpoint(folder, model_class=BertForMaskedLM, config_class=BertConfig):
    seed_everything(3)
    config = config_class(
        vocab_size=len(PLAIN), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, embedding_size=16,
    )  # fmt: skip
    model = model_class(config).eval()
    if hasattr(model, "cls"):
        torch.nn.init.normal_(model.cls.predictions.bias)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(PLAIN) + "\n")
    (folder / "counts.json").write_text(json.dumps(COUNTS))
    return model


def cipher():
    """A renumbering of the plain tokens: token -> published id, in no meaningful order."""
    rng = np.random.default_rng(9)
    numbers = rng.permutation(np.arange(100, 100 + len(COUNTS)))
    return {token: str(number) for token, number in zip(COUNTS, numbers, strict=True)}


def vocabulary_of(key):
    counts = {key[token]: count for token, count in COUNTS.items()}
    return fit_vocabulary(counts, DataConfig(min_count=1))


@pytest.mark.parametrize(
    ("model_class", "config_class"),
    [(BertForMaskedLM, BertConfig), (RoFormerForMaskedLM, RoFormerConfig)],
)
def test_a_permuted_numbering_gives_the_logits_of_the_plain_text(
    tmp_path, model_class, config_class
):
    plain = write_checkpoint(tmp_path, model_class, config_class)
    key = cipher()
    vocabulary = vocabulary_of(key)
    config = ModelConfig(init=str(tmp_path), reference_counts=str(tmp_path / "counts.json"))
    aligned = load_aligned(config, vocabulary, rng=np.random.default_rng(0))
    assert (aligned.num_aligned, aligned.num_drawn, aligned.has_mlm_head) == (20, 0, True)

    text = ["[CLS]", *"cafe", "[SEP]", *"dead", "[SEP]"]
    plain_ids = torch.tensor([[PLAIN.index(token) for token in text]])
    encoded = vocabulary.encode(
        [" ".join(key[token] for token in "cafe")], [" ".join(key[token] for token in "dead")]
    )
    cls, sep = int(Special.CLS), int(Special.SEP)
    our_ids = torch.tensor([[cls, *encoded.ids[:4].tolist(), sep, *encoded.ids[4:].tolist(), sep]])
    with torch.inference_mode():
        theirs = plain(plain_ids).logits[0]
        ours = aligned.model.eval()(
            input_ids=our_ids,
            attention_mask=torch.ones_like(our_ids),
            positions=torch.arange(len(text)),
        ).logits
    columns = [PLAIN.index(token) for token in COUNTS]
    our_columns = [vocabulary.tokens.index(key[token]) for token in COUNTS]
    torch.testing.assert_close(ours[:, our_columns], theirs[:, columns])
    for special in ("PAD", "UNK", "CLS", "SEP", "MASK"):
        torch.testing.assert_close(
            ours[:, int(Special[special])], theirs[:, PLAIN.index(f"[{special}]")]
        )


def test_label_tokens_start_from_unk_and_spare_ids_are_drawn(tmp_path):
    plain = write_checkpoint(tmp_path)
    counts = {str(number): 900 - number for number in range(200)}
    vocabulary = fit_vocabulary(counts, DataConfig(min_count=1))
    config = ModelConfig(init=str(tmp_path), reference_counts=str(tmp_path / "counts.json"))
    aligned = load_aligned(config, vocabulary, rng=np.random.default_rng(0))
    rows = aligned.model.get_input_embeddings().weight
    old = plain.get_input_embeddings().weight
    torch.testing.assert_close(rows[Special.YES], old[PLAIN.index("[UNK]")])
    torch.testing.assert_close(rows[Special.NO], old[PLAIN.index("[UNK]")])
    drawn = rows[vocabulary.first_id + 20 :]
    assert aligned.num_drawn == len(drawn) == 180
    torch.testing.assert_close(drawn.mean(), old.mean(), atol=0.005, rtol=0)
    torch.testing.assert_close(drawn.std(dim=0).mean(), old.std(dim=0).mean(), atol=0.003, rtol=0)


def test_decoder_and_embedding_stay_one_matrix_through_saving(tmp_path):
    write_checkpoint(tmp_path / "plain")
    config = ModelConfig(init=str(tmp_path / "plain"))
    vocabulary = vocabulary_of(cipher())
    model = load_aligned(config, vocabulary, rng=np.random.default_rng(0)).model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    save_model(model, tmp_path / "ours")
    again = load_model(tmp_path / "ours")
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=0)


def test_a_checkpoint_without_an_mlm_head_is_reported(tmp_path):
    write_checkpoint(tmp_path, BertModel)
    config = ModelConfig(init=str(tmp_path), reference_counts=str(tmp_path / "counts.json"))
    aligned = load_aligned(config, vocabulary_of(cipher()), rng=np.random.default_rng(0))
    assert not aligned.has_mlm_head


def test_without_counts_every_id_is_drawn():
    vocabulary = vocabulary_of(cipher())
    reference = {token: row for row, token in enumerate(PLAIN)}
    keep = keep_tokens(vocabulary, reference, np.empty(0, np.int64))
    assert (keep[vocabulary.first_id :] == DRAWN).all()
    assert keep[Special.CLS] == PLAIN.index("[CLS]")


def test_a_vocabulary_larger_than_the_embedding_is_refused(tmp_path):
    write_checkpoint(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join([*PLAIN, "x"]))
    with pytest.raises(UserError, match="27 tokens, but the embedding has 26 rows"):
        load_aligned(
            ModelConfig(init=str(tmp_path)), vocabulary_of(cipher()), rng=np.random.default_rng(0)
        )


def test_counts_of_other_tokens_are_refused(tmp_path):
    write_checkpoint(tmp_path)
    (tmp_path / "counts.json").write_text('{"elsewhere": 3}')
    config = ModelConfig(init=str(tmp_path), reference_counts=str(tmp_path / "counts.json"))
    with pytest.raises(UserError, match="counts no token of"):
        load_aligned(config, vocabulary_of(cipher()), rng=np.random.default_rng(0))
