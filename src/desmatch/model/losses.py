"""Objectives as functions of logits.

Shapes: M masked tokens, R labelled pairs, V vocabulary.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from desmatch.schema import Special


def joint_loss(
    masked_logits: Tensor,
    masked_labels: Tensor,
    pair_logits: Tensor,
    pair_labels: Tensor,
    *,
    label_weight: float = 1.0,
) -> Tensor:
    """Mean cross-entropy of masked tokens and label tokens together.

    (sum of masked CE + w * sum of label CE) / (M + w * R): a label token is a predicted token
    like any other, w times over. Rows without a label have no label loss, hence no gradient of
    it; with nothing to predict the loss is 0.

    Args:
        masked_logits: (M, V), float.
        masked_labels: (M,), int, the token that was there.
        pair_logits: (R, V), float, at [CLS] of the labelled pairs.
        pair_labels: (R,), int, 0 or 1: [NO] or [YES] is to be predicted.
        label_weight: w.

    Source: kexue.fm/archives/8213.
    """
    masked = F.cross_entropy(masked_logits.float(), masked_labels, reduction="sum")
    label_tokens = pair_labels + int(Special.NO)
    pairs = F.cross_entropy(pair_logits.float(), label_tokens, reduction="sum")
    count = len(masked_labels) + label_weight * len(pair_labels)
    return (masked + label_weight * pairs) / max(count, 1)


def label_loss(pair_logits: Tensor, pair_labels: Tensor) -> Tensor:
    """Mean cross-entropy of [NO] against [YES], all other tokens left out.

    Args:
        pair_logits: (R, V), float, at [CLS] of the labelled pairs; R may be 0, then the loss is 0.
        pair_labels: (R,), int, 0 or 1.
    """
    two = label_logits(pair_logits)
    return F.cross_entropy(two.float(), pair_labels, reduction="sum") / max(len(pair_labels), 1)


def label_logits(pair_logits: Tensor) -> Tensor:
    """Return the logits of [NO] and [YES], (R, V) to (R, 2)."""
    return pair_logits[:, int(Special.NO) : int(Special.YES) + 1]
