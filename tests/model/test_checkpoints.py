from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    RoFormerConfig,
    RoFormerForMaskedLM,
)

from desmatch.data.vocabulary import fit_vocabulary
from desmatch.errors import UserError
from desmatch.model.checkpoints import DRAWN, keep_tokens, load_aligned, load_model
from desmatch.model.encoder import MatchModel
from desmatch.model.heads import MatchForPairs
from desmatch.recipe import DataConfig, ModelConfig
from desmatch.runs import seed_everything
from desmatch.schema import Special
from tests.model.conftest import (
    EVERY_ENCODER,
    PAIRS,
    assert_same_tensors,
    build,
    name_of,
    packed_pairs,
)

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


def write_checkpoint(folder, model_class=BertForMaskedLM, config_class=BertConfig, **changes):
    seed_everything(3)
    config = config_class(
        vocab_size=len(PLAIN), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, embedding_size=16, **changes,
    )  # fmt: skip
    model = model_class(config).eval()
    if hasattr(model, "cls"):
        torch.nn.init.normal_(model.cls.predictions.bias)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(PLAIN) + "\n")
    (folder / "counts.json").write_text(json.dumps(COUNTS))
    return model


def align(folder, **changes):
    """Start from a checkpoint with the vocabulary of the cipher, aligned by counts."""
    config = ModelConfig(init=str(folder), reference_counts=str(folder / "counts.json"), **changes)
    return load_aligned(config, vocabulary_of(cipher()), rng=np.random.default_rng(0))


def cipher():
    """A renumbering of the plain tokens: token -> published id, in no meaningful order."""
    rng = np.random.default_rng(9)
    numbers = rng.permutation(np.arange(100, 100 + len(COUNTS)))
    return {token: str(number) for token, number in zip(COUNTS, numbers, strict=True)}


def vocabulary_of(key):
    counts = {key[token]: count for token, count in COUNTS.items()}
    return fit_vocabulary(counts, DataConfig(min_count=1))


def assert_same_text_same_logits(plain, model, **tolerance):
    """Compare the logits of one text, in plain tokens and in ids of the cipher."""
    key = cipher()
    vocabulary = vocabulary_of(key)
    text = ["[CLS]", *"cafe", "[SEP]", *"dead", "[SEP]"]
    plain_ids = torch.tensor([[PLAIN.index(token) for token in text]])
    encoded = vocabulary.encode(
        [" ".join(key[token] for token in "cafe")], [" ".join(key[token] for token in "dead")]
    )
    cls, sep = int(Special.CLS), int(Special.SEP)
    our_ids = torch.tensor([[cls, *encoded.ids[:4].tolist(), sep, *encoded.ids[4:].tolist(), sep]])
    with torch.inference_mode():
        theirs, ours = plain(plain_ids).logits[0], model.eval()(our_ids).logits[0]
    columns = [PLAIN.index(token) for token in COUNTS]
    our_columns = [vocabulary.tokens.index(key[token]) for token in COUNTS]
    torch.testing.assert_close(ours[:, our_columns], theirs[:, columns], **tolerance)
    for special in ("PAD", "UNK", "CLS", "SEP", "MASK"):
        ours_of_special = ours[:, int(Special[special])]
        torch.testing.assert_close(
            ours_of_special, theirs[:, PLAIN.index(f"[{special}]")], **tolerance
        )


@pytest.mark.parametrize(
    ("model_class", "config_class"),
    [(BertForMaskedLM, BertConfig), (RoFormerForMaskedLM, RoFormerConfig)],
)
def test_a_permuted_numbering_gives_the_logits_of_the_plain_text(
    tmp_path, model_class, config_class
):
    plain = write_checkpoint(tmp_path, model_class, config_class)
    aligned = align(tmp_path)
    assert (aligned.num_aligned, aligned.num_drawn, aligned.has_mlm_head) == (20, 0, True)
    assert_same_text_same_logits(plain, aligned.model)


@pytest.mark.parametrize("rule", ["paper", "adam"])
def test_a_checkpoint_keeps_its_function_as_a_deepnorm_model(tmp_path, rule):
    plain = write_checkpoint(tmp_path)
    model = align(tmp_path, norm="deepnorm", deepnorm_rule=rule).model
    assert model.config.alpha == pytest.approx({"paper": 4**0.25, "adam": 2}[rule])
    assert_same_text_same_logits(plain, model, atol=1e-4, rtol=0)


def test_a_checkpoint_cannot_start_a_pre_norm_model(tmp_path):
    write_checkpoint(tmp_path)
    with pytest.raises(UserError, match="post-norm checkpoint cannot start a pre-norm model"):
        align(tmp_path, norm="pre")


def test_the_recipe_decides_dropout_and_heads_and_the_checkpoint_the_shape(tmp_path):
    write_checkpoint(tmp_path)
    config = align(
        tmp_path, hidden_dropout_prob=0.25, head="classifier", pooling="mean", hidden_size=64
    ).model.config
    assert (config.hidden_dropout_prob, config.head, config.pooling) == (0.25, "classifier", "mean")
    assert config.hidden_size == 16


@pytest.mark.parametrize("pooling", ["cls", "mean", "cls-mean"])
def test_a_pooler_starts_the_classifier_where_it_fits(tmp_path, pooling):
    plain = write_checkpoint(tmp_path, BertModel)
    dense = align(tmp_path, head="classifier", pooling=pooling).model.pair_head.dense
    fits = dense.weight.shape == plain.pooler.dense.weight.shape
    assert fits == (pooling != "cls-mean")
    assert torch.equal(dense.weight, plain.pooler.dense.weight) == fits


def test_a_classifier_of_other_labels_is_left_out(tmp_path):
    plain = write_checkpoint(tmp_path, BertForSequenceClassification, num_labels=3)
    head = align(tmp_path, head="classifier").model.pair_head
    torch.testing.assert_close(head.dense.weight, plain.bert.pooler.dense.weight)
    assert head.output.weight.shape == (2, 16)


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
    model = align(tmp_path / "plain").model
    model.save_pretrained(tmp_path / "ours")
    again = load_model(tmp_path / "ours")
    assert_same_tensors(again.state_dict(), model.state_dict(), tolerance=0)
    vocabulary_rows = [name for name, tensor in again.state_dict().items()
                       if tensor.shape == (model.config.vocab_size, 16)]  # fmt: skip
    assert vocabulary_rows == ["encoder.embeddings.word.weight"]


@pytest.mark.parametrize(
    "changes",
    [
        *EVERY_ENCODER,
        {"mlm_head_dense": False},
        {"head": "classifier", "pooling": "cls-mean"},
        {"head": "naive-bayes"},
    ],
    ids=name_of,
)
def test_a_saved_model_is_the_same_bit_for_bit_whoever_opens_it(tmp_path, changes):
    model = build(**changes)
    model.save_pretrained(tmp_path)
    flat, packed = packed_pairs(PAIRS)
    pair_cells = torch.from_numpy(packed.cells[flat.starts])
    expected = model(**packed.inputs, pair_cells=pair_cells).pair_logits
    for again in (load_model(tmp_path), AutoModelForMaskedLM.from_pretrained(tmp_path)):
        assert type(again) is MatchForPairs
        assert again.config.to_diff_dict() == model.config.to_diff_dict()
        assert_same_tensors(again.state_dict(), model.state_dict(), tolerance=0)
        logits = again.eval()(**packed.inputs, pair_cells=pair_cells).pair_logits
        torch.testing.assert_close(logits, expected, atol=0, rtol=0)
    encoder = AutoModel.from_pretrained(tmp_path)
    assert type(encoder) is MatchModel
    assert_same_tensors(encoder.state_dict(), model.encoder.state_dict(), tolerance=0)


def test_an_encoder_alone_opens_with_a_fresh_head(tmp_path):
    model = build()
    model.encoder.save_pretrained(tmp_path)
    again = AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert_same_tensors(again.encoder.state_dict(), model.encoder.state_dict(), tolerance=0)
    assert not again.mlm_head.bias.any()
    assert not again.mlm_head.dense.bias.any()
    assert (again.mlm_head.norm.weight == 1).all()
    assert again.mlm_head.dense.weight.std().item() == pytest.approx(0.0176, rel=0.2)
    with pytest.raises(UserError, match="the model lacks mlm_head"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "no model"),
        ({"config.json": "{}"}, "no model"),
        ({"config.json": '{"model_type": "bert"}', "model.safetensors": ""},
         "model_type 'bert' is not one of our models; train from it with --model.init"),
        ({"config.json": '{"model_type": "desmatch"}', "model.safetensors": "x"},
         "the model cannot be read"),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_trained_model_is_refused(tmp_path, files, reason):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=reason):
        load_model(tmp_path)


@pytest.mark.parametrize("has_dense", [True, False])
def test_a_checkpoint_without_an_mlm_head_is_reported(tmp_path, has_dense):
    write_checkpoint(tmp_path, BertModel)
    assert not align(tmp_path, mlm_head_dense=has_dense).has_mlm_head


def test_a_checkpoint_that_lacks_a_layer_is_refused(tmp_path):
    write_checkpoint(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(UserError, match=r"the checkpoint lacks encoder\.layers\.2"):
        align(tmp_path)


def test_a_config_of_another_shape_is_refused(tmp_path):
    write_checkpoint(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    with pytest.raises(UserError, match=r"config\.json does not fit the weights"):
        align(tmp_path)


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
