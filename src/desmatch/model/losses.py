"""Objectives as functions of logits.

Shapes: M masked tokens, B labelled pairs, S dropout samples, V vocabulary, C columns of a label:
V for label tokens, else 2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from desmatch.schema import Special

FIRST_LABEL_TOKEN = int(Special.NO)
"""Column of label 0 where labels are tokens; label 1 is the next one."""


def joint_loss(
    masked_logits: Tensor,
    masked_labels: Tensor,
    pair_logits: Tensor,
    pair_labels: Tensor,
    *,
    first_label_column: int = FIRST_LABEL_TOKEN,
    label_weight: float = 1.0,
) -> Tensor:
    """Mean cross-entropy of masked tokens and labels together.

    (sum of masked CE + w * sum of label CE) / (M + w * B): a label is a predicted token like any
    other, w times over. Rows without a label have no label loss, hence no gradient of it; with
    nothing to predict the loss is 0. A label between 0 and 1 is a teacher's probability.

    Args:
        masked_logits: (M, V), float.
        masked_labels: (M,), int, the token that was there.
        pair_logits: (B, C) or (S, B, C), float, of the labelled pairs.
        pair_labels: (B,), probability of label 1, in [0, 1].
        first_label_column: Of `pair_logits`, the one of label 0.
        label_weight: w.

    Source: kexue.fm/archives/8213.
    """
    masked = F.cross_entropy(masked_logits.float(), masked_labels, reduction="sum")
    pairs = _label_cross_entropy(pair_logits, pair_labels, first_label_column)
    count = len(masked_labels) + label_weight * len(pair_labels)
    return (masked + label_weight * pairs) / max(count, 1)


def label_loss(
    pair_logits: Tensor,
    pair_labels: Tensor,
    *,
    first_label_column: int = FIRST_LABEL_TOKEN,
    smoothing: float = 0.0,
) -> Tensor:
    """Mean cross-entropy of label 0 against label 1, all other tokens left out.

    Args:
        pair_logits: (B, C) or (S, B, C), float; B may be 0, then the loss is 0.
        pair_labels: (B,), probability of label 1, in [0, 1].
        first_label_column: Of `pair_logits`, the one of label 0.
        smoothing: Share of the target that is spread evenly over both labels (arXiv 1512.00567).
    """
    two = label_logits(pair_logits, first_label_column=first_label_column)
    smooth = (1 - smoothing) * pair_labels + smoothing / 2
    return _label_cross_entropy(two, smooth, 0) / max(len(pair_labels), 1)


def symmetric_divergence(first: Tensor, second: Tensor) -> Tensor:
    """Mean over pairs of (KL(p, q) + KL(q, p)) / 2, p and q the softmax of two passes' logits.

    R-Drop's regulariser (arXiv 2106.14448): two dropout masks should say the same.

    Args:
        first: (..., C), float.
        second: (..., C), float.
    """
    p, q = first.float().log_softmax(-1), second.float().log_softmax(-1)
    both = (p.exp() - q.exp()) * (p - q)  # KL(p, q) + KL(q, p), term by term
    return both.sum() / 2 / max(first[..., 0].numel(), 1)


def label_logits(pair_logits: Tensor, *, first_label_column: int = FIRST_LABEL_TOKEN) -> Tensor:
    """Return the logits of both labels, (..., C) to (..., 2)."""
    return pair_logits[..., first_label_column : first_label_column + 2]


def _label_cross_entropy(logits: Tensor, labels: Tensor, first_column: int) -> Tensor:
    """Sum over pairs of the mean over dropout samples: (B, C) or (S, B, C), and (B,)."""
    no, yes = logits.float().log_softmax(-1)[..., first_column : first_column + 2].unbind(-1)
    losses = -torch.lerp(no, yes, labels.to(no.dtype).expand_as(no))  # (B,) or (S, B)
    return (losses if losses.dim() == 1 else losses.mean(0)).sum()
