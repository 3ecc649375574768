from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertForMaskedLM

from desmatch.data.batches import assemble
from desmatch.data.heat import choose_left_out, leave_out
from desmatch.data.vocabulary import fit_vocabulary
from desmatch.intake import find_sources
from desmatch.model.attention import ATTENTIONS
from desmatch.model.batch import (
    OBJECTIVES,
    TrainingBatches,
    TrainingRows,
    Vocabularies,
    lay_out,
    lay_out_both,
)
from desmatch.model.checkpoints import build_model, load_aligned, load_model
from desmatch.model.configuration import MatchConfig
from desmatch.model.convert import to_hugging_face
from desmatch.model.heads import MatchForPairs, model_inputs
from desmatch.model.heat import FILLS, Interpolation
from desmatch.model.norms import NORMS
from desmatch.model.scoring import score_pairs
from desmatch.prepare import Prepared, prepare
from desmatch.recipe import DataConfig, ModelConfig, Recipe
from desmatch.recipe_training import TrainingConfig
from desmatch.runs import StageFolder, read_json, seed_everything
from desmatch.schema import Special
from desmatch.train.finetune import finetune
from desmatch.train.pretrain import joint_objective, pretrain, starting_model
from desmatch.train.trainer import StageTrainer
from tests.conftest import encode_lists

SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def build(seed=0, **changes):
    """A model of random parameters without dropout, A among them, in training mode."""
    seed_everything(seed)
    config = MatchConfig(**{"vocab_size": 40, "max_position_embeddings": 64, **SHAPE, **NO_DROPOUT,
                            "heat_fill": "linear", **changes})  # fmt: skip
    model = MatchForPairs(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def fill_of(name, width=4, seed=0):
    seed_everything(seed)
    fill = FILLS[name](MatchConfig(hidden_size=width, num_attention_heads=1))
    for parameter in fill.parameters():
        torch.nn.init.normal_(parameter)
    return fill.double()


def draw_pairs(num_pairs, seed=0, longest=10):
    rng = np.random.default_rng(seed)
    texts = [rng.integers(7, 40, rng.integers(1, longest)).tolist() for _ in range(2 * num_pairs)]
    return list(zip(texts[::2], texts[1::2], strict=True))


def flat_of(pairs):
    return assemble(encode_lists(pairs), np.arange(len(pairs)), np.zeros(len(pairs), bool))


def heat_batches(pairs, labels, **changes):
    config = TrainingConfig(
        **{
            "objective": "heat",
            "mlm_probability": 0.4,
            "batch_size": len(pairs),
            "num_evaluations": 1,
            **changes,
        }
    )
    rows = TrainingRows(encode_lists(pairs), np.array(labels, np.int8))
    return TrainingBatches(rows, config, Vocabularies(7, 40), seed=1, stage="toy")


@st.composite
def series_with_gaps(draw):
    """Features at places 0, 1, ..., and which of them are kept, at least one."""
    is_kept = draw(st.lists(st.booleans(), min_size=1, max_size=12).filter(any))
    seed = draw(st.integers(0, 2**32 - 1))
    return np.array(is_kept), np.random.default_rng(seed).normal(size=(len(is_kept), 4))


def nearest_kept(is_kept):
    """(2, length), by a loop: the kept places left and right; at the ends one of them twice."""
    places = np.flatnonzero(is_kept).tolist()
    lefts = [max((p for p in places if p <= at), default=None) for at in range(len(is_kept))]
    rights = [min((p for p in places if p >= at), default=None) for at in range(len(is_kept))]
    return np.array(
        [
            [r if each is None else each for each, r in zip(lefts, rights, strict=True)],
            [each if r is None else r for each, r in zip(lefts, rights, strict=True)],
        ]
    )


@given(series_with_gaps())
@settings(deadline=None)
def test_the_filled_feature_is_the_mean_of_both_carried_neighbours(case):
    is_kept, features = case
    both = nearest_kept(is_kept)
    fill = fill_of("linear")
    slope = fill.slope.detach().numpy()
    expected = []
    for at, (left, right) in enumerate(both.T.tolist()):
        to_left, to_right = at - left, right - at
        if left == right:
            expected.append(features[left] + to_left * slope @ features[left])
            continue
        left_share = to_right / (to_left + to_right)
        right_share = to_left / (to_left + to_right)
        expected.append(
            left_share * (np.eye(4) + to_left * slope) @ features[left]
            + right_share * (np.eye(4) - to_right * slope) @ features[right]
        )
    offsets = torch.from_numpy(np.arange(len(is_kept)) - both)
    found = fill(torch.from_numpy(features), torch.from_numpy(both), offsets)
    np.testing.assert_allclose(found.detach(), expected, atol=1e-5)


@given(series_with_gaps())
@settings(deadline=None)
def test_without_a_slope_it_is_plain_interpolation(case):
    is_kept, features = case
    both = nearest_kept(is_kept)
    fill = Interpolation(MatchConfig(hidden_size=4, num_attention_heads=1)).double()
    here, places = np.arange(len(is_kept)), np.flatnonzero(is_kept)
    found = fill(
        torch.from_numpy(features), torch.from_numpy(both), torch.from_numpy(here - both)
    ).detach()
    for dimension in range(4):
        expected = np.interp(here, places, features[places, dimension])
        np.testing.assert_allclose(found[:, dimension], expected, atol=1e-6)


def test_copying_copies_and_a_vector_stands_for_every_masked_token():
    hidden = torch.randn(3, 4, dtype=torch.float64)
    neighbors = torch.tensor([[0, 0, 1, 2], [0, 0, 1, 2]])
    offsets = torch.tensor([[0, 1, 0, -2], [0, 1, 0, -2]])
    torch.testing.assert_close(fill_of("copy")(hidden, neighbors, offsets), hidden[neighbors[0]])
    masked = fill_of("mask")
    found = masked(hidden, neighbors, offsets)
    torch.testing.assert_close(found[[0, 2]], hidden[[0, 1]])
    torch.testing.assert_close(found[[1, 3]], masked.vector.weight.expand(2, -1))


def toy_series(length, width=8, seed=0):
    """z' = M z + noise, M a slowly damped turn by other angles in other planes."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(width, width)))[0]
    turn = np.zeros((width, width))
    for plane in range(0, width, 2):
        angle = rng.uniform(0.25, 0.5)
        cos, sin = np.cos(angle), np.sin(angle)
        turn[plane : plane + 2, plane : plane + 2] = [[cos, -sin], [sin, cos]]
    matrix = 0.997 * basis @ turn @ basis.T
    series = [rng.normal(size=width)]
    for noise in 0.05 * rng.normal(size=(length + 200, width)):
        series.append(matrix @ series[-1] + noise)
    return matrix, torch.tensor(np.stack(series[-length:]))


def test_a_series_is_learned_and_predicted_eight_steps_ahead():
    matrix, series = toy_series(6000)
    train, test = series[:4000], series[4000:]
    fill = Interpolation(MatchConfig(hidden_size=8, num_attention_heads=1)).double()

    def one_step(features):
        here = torch.arange(len(features)).expand(2, -1)
        return fill(features, here, torch.ones_like(here))

    optimizer = torch.optim.LBFGS(fill.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = (one_step(train[:-1]) - train[1:]).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    learned = np.eye(8) + fill.slope.detach().numpy()
    assert np.linalg.norm(learned - matrix) <= 0.02 * np.linalg.norm(matrix)

    start, end = test[:-8], test[8:]
    ahead = start
    with torch.no_grad():
        for _ in range(8):
            ahead = one_step(ahead)

    def explained(prediction):
        spread = (end - end.mean(dim=0)).square().sum()
        return float(1 - (prediction - end).square().sum() / spread)

    assert explained(ahead) >= 0.85
    assert explained(start) < 0


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("position", ATTENTIONS)
def test_packed_pairs_have_the_losses_of_one_pair_a_batch(fill, position):
    model = build(heat_fill=fill, position=position, num_heat_layers=2)
    pairs = draw_pairs(12)
    flat = flat_of(pairs)
    rng = np.random.default_rng(3)
    chosen = choose_left_out(flat, fill=fill, probability=0.5, rng=rng)

    def outputs(flat, chosen):
        hidden = lay_out_both(flat, leave_out(flat, chosen, fill=fill))
        output = model(**hidden.inputs, pair_cells=torch.from_numpy(hidden.first_cells))
        labels = torch.from_numpy(hidden.labels)
        losses = torch.nn.functional.cross_entropy(output.logits, labels, reduction="none")
        return losses, output.pair_logits

    together = outputs(flat, chosen)
    alone = [
        outputs(flat_of([pair]), chosen[start : start + length])
        for pair, start, length in zip(pairs, flat.starts, flat.lengths, strict=True)
    ]
    for whole, parts in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(whole, torch.cat(parts), rtol=0, atol=1e-5)


def test_the_encoder_does_not_see_what_is_left_out():
    flat = flat_of(draw_pairs(30))
    chosen = choose_left_out(flat, fill="linear", probability=0.4, rng=np.random.default_rng(0))
    other = flat._replace(ids=np.where(chosen, 39, flat.ids))
    first, second = (
        lay_out_both(each, leave_out(each, chosen, fill="linear")) for each in (flat, other)
    )
    for name, tensor in first.inputs.items():
        torch.testing.assert_close(tensor, second.inputs[name])
    kept, whole = first.inputs["input_ids"], lay_out(flat).input_ids
    assert (kept != Special.PAD).sum() == (~chosen).sum()
    assert kept.numel() < 0.8 * whole.numel()
    assert Special.MASK not in kept


def test_kept_tokens_have_their_true_positions():
    flat = flat_of([([7, 8, 9], [10, 11])])
    chosen = np.array([False, False, True, True, False, True, False, False])
    inputs = lay_out_both(flat, leave_out(flat, chosen, fill="linear")).inputs
    assert inputs["input_ids"][0, :5].tolist() == [Special.CLS, 7, Special.SEP, 11, Special.SEP]
    assert inputs["position_ids"][0, :5].tolist() == [0, 1, 4, 6, 7]
    assert inputs["full_position_ids"][0, :8].tolist() == list(range(8))
    assert inputs["neighbor_cells"][:, 0, :8].tolist() == [
        [0, 1, 1, 1, 2, 2, 3, 4],
        [0, 1, 2, 2, 2, 3, 3, 4],
    ]


@pytest.mark.parametrize("head", ["label-tokens", "classifier", "naive-bayes"])
def test_labels_are_read_from_the_kept_tokens(head):
    model = build(head=head, pooling="cls-mean")
    batch = heat_batches(draw_pairs(9), [0, 1, -1] * 3)[0]
    inputs = model_inputs(batch)
    kept = {name: inputs[name] for name in ("input_ids", "attention_mask", "position_ids")}
    for mode in (True, False):
        model.train(mode)
        expected = model(**kept, pair_cells=batch["pair_cells"]).pair_logits
        torch.testing.assert_close(model(**inputs).pair_logits, expected)
    assert len(expected) == len(batch["pair_labels"]) == 6


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("position", ATTENTIONS)
@pytest.mark.parametrize("norm", NORMS)
def test_every_parameter_of_the_decoder_learns(fill, position, norm):
    model = build(heat_fill=fill, position=position, norm=norm, num_heat_layers=2)
    batch = heat_batches(draw_pairs(9), [0, 1, -1] * 3, fill=fill)[0]
    joint_objective(model, 1.0)(model(**model_inputs(batch)), batch).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_the_slope_starts_at_zero_and_the_encoder_as_without_a_decoder():
    models = []
    for objective in ("mlm", "heat"):
        seed_everything(5)
        models.append(build_model(ModelConfig(**SHAPE), vocab_size=40, max_length=32,
                                  pretraining=TrainingConfig(objective=objective)))  # fmt: skip
    plain, heat = models
    assert plain.heat is None
    assert not heat.heat.fill.slope.any()
    for name, parameter in plain.encoder.named_parameters():
        torch.testing.assert_close(parameter, heat.encoder.get_parameter(name))


def test_a_batch_is_a_function_of_seed_and_step_and_its_noise_is_drawn_anew():
    first, second = (heat_batches(draw_pairs(9), [0, 1, -1] * 3, num_train_epochs=8) for _ in "ab")
    _ = second[2]
    for name, tensor in first[7].items():
        torch.testing.assert_close(tensor, second[7][name])
    assert len({tuple(first[step]["masked_labels"].tolist()) for step in range(8)}) == 8


def test_the_objectives_are_those_of_the_recipe():
    assert list(OBJECTIVES) == ["mlm", "heat"]
    assert list(FILLS) == ["linear", "mask", "copy", "extrapolate"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda: TrainingConfig(num_heat_layers=3), "num_heat_layers: expected 1 or 2, got 3"),
        (lambda: TrainingConfig(objective="heat", mlm_probability=0.0),
         "mlm_probability: expected more than 0 with the objective heat, got 0.0"),
        (lambda: Recipe(finetune=TrainingConfig(objective="heat")),
         r"finetune.objective: expected mlm \(heat is for pretrain\), got 'heat'"),
    ],
)  # fmt: skip
def test_a_recipe_without_a_meaning_is_refused(change, reason):
    with pytest.raises(ValueError, match=reason):
        change()


@pytest.fixture(scope="module")
def prepared(sample_folder, tiny_recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    prepare(find_sources(sample_folder), tiny_recipe, folder)
    return Prepared.load(folder)


def heat_recipe(recipe, **changes):
    values = {"objective": "heat", "mlm_probability": 0.4, **changes}
    return dataclasses.replace(recipe, pretrain=dataclasses.replace(recipe.pretrain, **values))


@pytest.mark.parametrize("fill", ["linear", "mask"])
def test_a_heat_stage_is_trained_saved_and_fine_tuned(prepared, tiny_recipe, tmp_path, fill):
    recipe = heat_recipe(tiny_recipe, fill=fill)
    pretrain(prepared, recipe, StageFolder(tmp_path / "pretrained", "digest"), fold=0)
    assert read_json(tmp_path / "pretrained" / "config.json")["heat_fill"] == fill
    assert MatchForPairs.from_pretrained(tmp_path / "pretrained").heat is not None
    assert load_model(tmp_path / "pretrained").heat is None
    finetune(
        prepared,
        recipe,
        tmp_path / "pretrained",
        StageFolder(tmp_path / "finetuned", "digest"),
        fold=0,
    )
    model = load_model(tmp_path / "finetuned")
    assert read_json(tmp_path / "finetuned" / "config.json")["heat_fill"] is None
    assert np.isfinite(score_pairs(model, prepared.encode("test")).scores).all()
    assert {line["stage"] for line in read_json(tmp_path / "finetuned" / "history.json")} == {
        "finetuned"
    }


def test_a_resumed_heat_stage_ends_like_an_uninterrupted_one(
    prepared, tiny_recipe, tmp_path, monkeypatch
):
    recipe = heat_recipe(tiny_recipe)
    pretrain(prepared, recipe, StageFolder(tmp_path / "whole", "digest"), fold=0)
    step, calls = StageTrainer.training_step, iter(range(20))

    def stumbling(self, *args, **kwargs):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    cut = tmp_path / "cut" / "whole"  # the stage's name decides what it draws
    with monkeypatch.context() as patch:
        patch.setattr(StageTrainer, "training_step", stumbling)
        with pytest.raises(KeyboardInterrupt):
            pretrain(prepared, recipe, StageFolder(cut, "digest"), fold=0)
    pretrain(prepared, recipe, StageFolder(cut, "digest", may_resume=True), fold=0)
    whole, resumed = (MatchForPairs.from_pretrained(each) for each in (tmp_path / "whole", cut))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert whole.heat.fill.slope.any()


def test_a_checkpoint_gets_a_decoder(tmp_path):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]
    seed_everything(0)
    BertForMaskedLM(BertConfig(vocab_size=len(tokens), max_position_embeddings=64, **SHAPE)
                    ).save_pretrained(tmp_path)  # fmt: skip
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n")
    vocabulary = fit_vocabulary({str(number): 5 for number in range(10)}, DataConfig())
    aligned = load_aligned(
        ModelConfig(init=str(tmp_path)),
        vocabulary,
        rng=np.random.default_rng(0),
        pretraining=TrainingConfig(objective="heat", fill="copy", num_heat_layers=2),
    )
    assert aligned.has_mlm_head
    assert aligned.model.config.heat_fill == "copy"
    assert len(aligned.model.heat.layers) == 2


def test_the_starting_model_follows_the_recipe(prepared, tiny_recipe):
    model, _ = starting_model(prepared, heat_recipe(tiny_recipe, fill="mask", num_heat_layers=2))
    assert (model.config.heat_fill, len(model.heat.layers)) == ("mask", 2)
    assert starting_model(prepared, tiny_recipe)[0].heat is None


@pytest.mark.parametrize("norm", ["post", "deepnorm"])
def test_the_plain_class_is_without_the_decoder(norm):
    model = build(norm=norm).eval()
    bare = copy.deepcopy(model)
    bare.heat = None
    packed = lay_out(flat_of(draw_pairs(1)))
    width = int(packed.attention_mask.sum())
    ids = packed.input_ids[:, :width]
    with torch.inference_mode():
        plain = to_hugging_face(model)(input_ids=ids).logits
        torch.testing.assert_close(plain, bare(input_ids=ids).logits, atol=1e-4, rtol=1e-4)
