from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    RoFormerConfig,
    RoFormerForMaskedLM,
    RoFormerForSequenceClassification,
)

from desmatch.errors import UserError
from desmatch.model.configuration import MatchConfig
from desmatch.model.convert import (
    in_halves,
    in_pairs,
    read_config,
    read_state,
    scale_branches,
    to_hugging_face,
    to_ours,
)
from desmatch.model.heads import MatchForPairs
from tests.model import reference
from tests.model.conftest import (
    NO_DROPOUT,
    PAIRS,
    SHAPE,
    assert_same_tensors,
    build,
    draw_parameters,
    flat_batch,
    pad,
)

THEIRS = {
    ("bert", "label-tokens"): (BertConfig, BertForMaskedLM),
    ("bert", "classifier"): (BertConfig, BertForSequenceClassification),
    ("roformer", "label-tokens"): (RoFormerConfig, RoFormerForMaskedLM),
    ("roformer", "classifier"): (RoFormerConfig, RoFormerForSequenceClassification),
}
every_class = pytest.mark.parametrize(("family", "head"), list(THEIRS))
FAMILIES = {"absolute": "bert", "rotary": "roformer"}
HEAD_ACT = {"absolute": "tanh", "rotary": "gelu"}


def write_theirs(folder, family, head, **changes):
    """A checkpoint of transformers with random parameters, and its model."""
    config_class, model_class = THEIRS[family, head]
    config = config_class(**{**SHAPE, **NO_DROPOUT, "pad_token_id": 0, **changes})
    model = draw_parameters(model_class(config), seed=6).eval()
    model.save_pretrained(folder)
    return model


def read_ours(folder, **changes):
    """The checkpoint as a model of ours; all its weights have to come from there."""
    config = MatchConfig(**{**read_config(folder), **NO_DROPOUT, **changes})
    model, state = MatchForPairs(config), read_state(folder)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert not [name for name in missing if not name.startswith("mlm_head")]
    return model.eval()


def logits_of(model):
    """Logits of the pairs' tokens, or of the pairs, from our model or one of theirs."""
    inputs, cells = pad(flat_batch(PAIRS))
    with torch.inference_mode():
        if not isinstance(model, MatchForPairs):
            logits = model(**inputs).logits
            return logits if logits.dim() == 2 else logits.flatten(0, 1)[cells]
        if model.pair_head is None:
            return model(**inputs).logits.flatten(0, 1)[cells]
        first = torch.arange(len(PAIRS)) * inputs["input_ids"].shape[1]
        return model(**inputs, pair_cells=first).pair_logits


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rename(folder, names):
    """Write the folder's weights under other names."""
    path = folder / "model.safetensors"
    save_file({names(name): tensor for name, tensor in load_file(path).items()}, path)


@every_class
def test_a_checkpoint_gives_the_logits_it_gave(tmp_path, family, head):
    plain = write_theirs(tmp_path, family, head)
    ours = read_ours(tmp_path, head=head)
    torch.testing.assert_close(logits_of(ours), logits_of(plain))


@pytest.mark.parametrize("family", ["bert", "roformer"])
def test_settings_that_change_the_function_are_read(tmp_path, family):
    write_theirs(tmp_path, family, "label-tokens", hidden_act="relu", layer_norm_eps=0.1,
                 max_position_embeddings=33, num_attention_heads=4)  # fmt: skip
    settings = read_config(tmp_path)
    assert settings["hidden_act"] == "relu"
    assert settings["layer_norm_eps"] == 0.1
    assert settings["max_position_embeddings"] == 33
    plain = THEIRS[family, "label-tokens"][1].from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits_of(read_ours(tmp_path)), logits_of(plain))


@pytest.mark.parametrize("head", ["label-tokens", "classifier"])
@pytest.mark.parametrize("norm", ["post", "deepnorm"])
@pytest.mark.parametrize("position", ["absolute", "rotary"])
def test_an_exported_model_gives_the_logits_it_gave(tmp_path, position, norm, head):
    model = build(position=position, norm=norm, head=head, head_act=HEAD_ACT[position])
    plain = to_hugging_face(model)
    assert type(plain) is THEIRS[FAMILIES[position], head][1]
    tolerance = {"atol": 1e-4, "rtol": 0} if norm == "deepnorm" else {}
    torch.testing.assert_close(logits_of(plain), logits_of(model), **tolerance)
    plain.save_pretrained(tmp_path)
    auto = {"label-tokens": AutoModelForMaskedLM, "classifier": AutoModelForSequenceClassification}
    again = auto[head].from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits_of(again), logits_of(plain), atol=0, rtol=0)


@pytest.mark.parametrize("head", ["label-tokens", "classifier"])
@pytest.mark.parametrize("position", ["absolute", "rotary"])
def test_out_and_in_again_is_the_same_weights(tmp_path, position, head):
    model = build(position=position, head=head, head_act=HEAD_ACT[position])
    to_hugging_face(model).save_pretrained(tmp_path)
    kept = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if head == "label-tokens" or not name.startswith("mlm_head")
    }
    assert_same_tensors(read_state(tmp_path), kept, tolerance=0)
    settings = read_config(tmp_path)
    assert settings == {name: getattr(model.config, name) for name in settings}


def test_exporting_leaves_the_model_as_it_was():
    model = build(norm="deepnorm")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plain = draw_parameters(to_hugging_face(model))
    assert not plain.training
    assert_same_tensors(model.state_dict(), before, tolerance=0)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"position": "relative"}, "position relative"),
        ({"norm": "pre"}, "norm pre"),
        ({"head": "naive-bayes"}, "a naive Bayes head"),
        ({"mlm_head_dense": False}, "an MLM head without its dense layer"),
        ({"head": "classifier", "pooling": "mean"}, "a classifier over mean with tanh"),
        ({"head": "classifier", "pooling": "cls-mean"}, "a classifier over cls-mean with tanh"),
        ({"head": "classifier", "head_act": "relu"}, "a classifier over cls with relu"),
        (
            {"position": "rotary", "head": "classifier", "head_act": "tanh"},
            "a classifier over cls with tanh",
        ),
    ],
)
def test_what_transformers_has_no_class_for_is_refused(changes, what):
    with pytest.raises(UserError) as caught:
        to_hugging_face(build(**changes))
    assert str(caught.value) == (
        f"transformers has no model with {what}; --to onnx and --to torch write any"
    )


def test_a_classifier_may_lack_the_dense_layer_of_the_mlm_head():
    model = build(head="classifier", mlm_head_dense=False)
    torch.testing.assert_close(logits_of(to_hugging_face(model)), logits_of(model))


def write_nezha(folder):
    """A checkpoint with the names and buffers of NEZHA's published weights."""
    write_theirs(folder, "bert", "label-tokens")
    state = load_file(folder / "model.safetensors")
    del state["bert.embeddings.position_embeddings.weight"]
    state = {name.replace("bert.", "nezha."): tensor for name, tensor in state.items()}
    attention = "nezha.encoder.layer.0.attention.self.relative_positions_encoding"
    state[f"{attention}.positions_encoding"] = torch.zeros(512, 512, 8)
    state["nezha.embeddings.position_ids"] = torch.arange(512)[None]
    state["cls.seq_relationship.weight"] = torch.zeros(2, 16)
    save_file(state, folder / "model.safetensors")
    edit_config(folder, model_type="nezha", max_relative_position=64)


def test_a_nezha_checkpoint_gives_relative_positions_and_all_weights(tmp_path):
    write_nezha(tmp_path)
    ours = read_ours(tmp_path)
    assert ours.config.position == "relative"
    absolute = build()
    write_theirs(tmp_path / "bert", "bert", "label-tokens")
    expected = read_ours(tmp_path / "bert").state_dict()
    del expected["encoder.embeddings.position.weight"]
    assert_same_tensors(ours.state_dict(), expected, tolerance=0)
    assert absolute.encoder.embeddings.position is not None
    ids = torch.randint(7, 40, (80,), generator=torch.Generator().manual_seed(0))
    hidden = ours.encoder(ids[None]).last_hidden_state[0]
    torch.testing.assert_close(hidden, reference.encode(ours.encoder, ids), atol=1e-5, rtol=1e-5)


def test_names_of_norms_from_tensorflow_are_read(tmp_path):
    plain = write_theirs(tmp_path, "bert", "label-tokens")
    kinds = {"weight": "gamma", "bias": "beta"}

    def old(name):
        stem, _, kind = name.rpartition(".")
        return f"{stem}.{kinds[kind]}" if stem.endswith("LayerNorm") else name

    rename(tmp_path, old)
    assert any(name.endswith("gamma") for name in load_file(tmp_path / "model.safetensors"))
    torch.testing.assert_close(logits_of(read_ours(tmp_path)), logits_of(plain))


def test_names_without_the_prefix_of_the_whole_model_are_read(tmp_path):
    plain = write_theirs(tmp_path, "bert", "label-tokens")
    rename(tmp_path, lambda name: name.removeprefix("bert."))
    torch.testing.assert_close(logits_of(read_ours(tmp_path)), logits_of(plain))


def test_half_precision_weights_become_fp32(tmp_path):
    write_theirs(tmp_path, "bert", "label-tokens").to(torch.float16).save_pretrained(tmp_path)
    assert {tensor.dtype for tensor in read_state(tmp_path).values()} == {torch.float32}


@pytest.mark.parametrize(
    ("family", "setting", "value"),
    [
        ("bert", "position_embedding_type", "relative_key"),
        ("roformer", "rotary_value", True),
        ("roformer", "embedding_size", 8),
        ("nezha", "max_relative_position", 32),
    ],
)
def test_variants_that_ours_cannot_express_are_refused(tmp_path, family, setting, value):
    (write_nezha if family == "nezha" else write_checkpoint)(tmp_path)
    edit_config(tmp_path, model_type=family, **{setting: value})
    with pytest.raises(UserError, match=rf"config.json: {setting} {value!r} is not read; only"):
        read_config(tmp_path)


def write_checkpoint(folder):
    write_theirs(folder, "bert", "label-tokens")


def read_both(folder):
    return read_config(folder), read_state(folder)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "has no config.json; a checkpoint folder holds"),
        ({"config.json": "{}"}, "has no model.safetensors"),
        ({"config.json": '{"model_type": "gpt2"}', "model.safetensors": ""},
         "model_type 'gpt2' is not read; use one of bert, roformer, nezha"),
        ({"config.json": '{"model_type": "bert"}', "model.safetensors": "x"},
         "the checkpoint cannot be read"),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path, files, reason):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=reason):
        read_both(tmp_path)


@pytest.mark.parametrize("shape", [(12,), (12, 5)])
def test_halves_hold_the_even_dimensions_of_each_head_then_the_odd_ones(shape):
    tensor = torch.randn(shape)
    expected = tensor[[0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]]
    torch.testing.assert_close(in_halves(tensor, 2), expected)
    torch.testing.assert_close(in_pairs(in_halves(tensor, 2), 2), tensor)


def test_only_the_last_matrix_and_bias_of_a_branch_are_scaled():
    state = build(head="classifier").state_dict()
    scaled = scale_branches(state, 3.0)
    changed = {name for name in state if not torch.equal(state[name], scaled[name])}
    assert changed == {
        f"encoder.layers.{layer}.{matrix}.{kind}"
        for layer in range(2)
        for matrix in ("attention.output", "feed_forward.contract")
        for kind in ("weight", "bias")
    }
    assert_same_tensors(scale_branches(scaled, 1 / 3), state, tolerance=1e-6)


def test_what_has_no_place_is_left_out():
    theirs = {"cls.seq_relationship.weight": torch.zeros(2, 4), "pooler.dense.bias": torch.ones(4)}
    assert list(to_ours(theirs, num_heads=2, is_rotary=False)) == ["pair_head.dense.bias"]
