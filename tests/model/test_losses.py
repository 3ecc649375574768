from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from desmatch.model.losses import joint_loss, label_logits, label_loss, symmetric_divergence
from desmatch.schema import Special


def draw(num_masked=5, num_pairs=3, vocab_size=12):
    generator = torch.Generator().manual_seed(0)
    masked = torch.randn(num_masked, vocab_size, generator=generator, requires_grad=True)
    pairs = torch.randn(num_pairs, vocab_size, generator=generator, requires_grad=True)
    masked_labels = torch.randint(7, vocab_size, (num_masked,), generator=generator)
    pair_labels = torch.randint(0, 2, (num_pairs,), generator=generator)
    return masked, masked_labels, pairs, pair_labels


def test_weight_one_is_the_cross_entropy_over_all_predicted_tokens():
    masked, masked_labels, pairs, pair_labels = draw()
    logits = torch.cat([masked, pairs])
    targets = torch.cat([masked_labels, pair_labels + int(Special.NO)])
    ours = joint_loss(masked, masked_labels, pairs, pair_labels)
    torch.testing.assert_close(ours, F.cross_entropy(logits, targets))


def test_the_weight_counts_a_label_token_as_often():
    masked, masked_labels, pairs, pair_labels = draw()
    twice = joint_loss(
        masked, masked_labels, torch.cat([pairs, pairs]), torch.cat([pair_labels, pair_labels])
    )
    weighted = joint_loss(masked, masked_labels, pairs, pair_labels, label_weight=2.0)
    torch.testing.assert_close(weighted, twice)


def test_rows_without_labels_give_the_masked_loss_alone():
    masked, masked_labels, pairs, _ = draw(num_pairs=0)
    none = torch.empty(0, dtype=torch.int64)
    loss = joint_loss(masked, masked_labels, pairs, none, label_weight=7.0)
    torch.testing.assert_close(loss, F.cross_entropy(masked, masked_labels))


@pytest.mark.parametrize("num_samples", [None, 3])
@pytest.mark.parametrize("loss", ["joint", "label"])
def test_nothing_to_predict_is_no_loss_and_no_nan(loss, num_samples):
    masked, masked_labels, pairs, _ = draw(num_masked=0, num_pairs=0)
    none = torch.empty(0, dtype=torch.int64)
    if num_samples is not None:
        pairs = pairs.expand(num_samples, -1, -1)
    value = (
        joint_loss(masked, masked_labels, pairs, none)
        if loss == "joint"
        else label_loss(pairs, none)
    )
    assert value.item() == 0.0
    value.backward()


def test_label_loss_is_the_binary_cross_entropy_of_the_difference():
    _, _, pairs, pair_labels = draw()
    two = label_logits(pairs)
    expected = F.binary_cross_entropy_with_logits(two[:, 1] - two[:, 0], pair_labels.float())
    torch.testing.assert_close(label_loss(pairs, pair_labels), expected)


def test_label_loss_touches_no_other_token():
    _, _, pairs, pair_labels = draw()
    label_loss(pairs, pair_labels).backward()
    others = [row for row in range(12) if row not in (Special.NO, Special.YES)]
    assert pairs.grad[:, others].abs().max() == 0


def test_two_columns_of_a_classifier_are_its_two_labels():
    _, _, pairs, pair_labels = draw(vocab_size=12)
    two = pairs[:, :2]
    torch.testing.assert_close(
        label_loss(two, pair_labels, first_label_column=0), F.cross_entropy(two, pair_labels)
    )


def test_a_classifier_and_masked_tokens_have_one_mean():
    masked, masked_labels, pairs, pair_labels = draw(num_masked=5, num_pairs=3)
    two = pairs[:, :2]
    loss = joint_loss(masked, masked_labels, two, pair_labels, first_label_column=0, label_weight=2)
    expected = (
        5 * F.cross_entropy(masked, masked_labels) + 2 * 3 * F.cross_entropy(two, pair_labels)
    ) / (5 + 2 * 3)
    torch.testing.assert_close(loss, expected)


def test_losses_of_bf16_logits_are_taken_in_fp32():
    masked, masked_labels, pairs, pair_labels = draw()
    rounded = masked.bfloat16(), pairs.bfloat16()
    loss = joint_loss(rounded[0], masked_labels, rounded[1], pair_labels)
    expected = joint_loss(rounded[0].float(), masked_labels, rounded[1].float(), pair_labels)
    torch.testing.assert_close(loss, expected, atol=0, rtol=0)
    assert loss.dtype == torch.float32


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothing_mixes_the_label_with_both_labels(smoothing):
    _, _, pairs, labels = draw()
    log_probs = label_logits(pairs).log_softmax(-1)
    target = (1 - smoothing) * F.one_hot(labels, 2) + smoothing / 2
    expected = -(target * log_probs).sum(-1).mean()
    torch.testing.assert_close(label_loss(pairs, labels, smoothing=smoothing), expected)


def test_the_divergence_is_the_mean_of_both_kullback_leibler_divergences():
    first, second = draw()[2][:, :2], draw(num_pairs=3, vocab_size=13)[2][:, :2]
    p, q = first.log_softmax(-1), second.log_softmax(-1)
    both = (F.kl_div(q, p, reduction="batchmean", log_target=True)
            + F.kl_div(p, q, reduction="batchmean", log_target=True))  # fmt: skip
    torch.testing.assert_close(symmetric_divergence(first, second), both / 2)
    assert symmetric_divergence(first, first).item() == 0
    assert symmetric_divergence(first[:0], second[:0]).item() == 0


@pytest.mark.parametrize("first", [0, int(Special.NO)])
def test_a_label_between_is_a_mixture_of_both(first):
    masked, masked_labels, pairs, _ = draw()
    share = torch.tensor([0.0, 0.3, 1.0])
    soft, no, yes = (
        joint_loss(masked, masked_labels, pairs, labels, first_label_column=first)
        for labels in (share, torch.zeros(3), torch.ones(3))
    )
    pulls = pairs.log_softmax(-1)[:, first] - pairs.log_softmax(-1)[:, first + 1]
    expected = no + (share * pulls).sum() / (len(masked) + 3)
    torch.testing.assert_close(soft, expected)
    torch.testing.assert_close(yes, no + pulls.sum() / (len(masked) + 3))
