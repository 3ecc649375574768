"""A pair's label by naive Bayes over its tokens: every token votes.

Shapes: R rows of W cells, N = R * W, B pairs, S dropout samples, D hidden. Source:
kexue.fm/archives/9617 and 9648.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from desmatch.model.dropout import Dropout
from desmatch.model.encoder import belongs_to_pairs
from desmatch.model.layers import Linear

if TYPE_CHECKING:
    from desmatch.model.configuration import MatchConfig


class NaiveBayesHead(nn.Module):
    """Attention pooling of the tokens' votes, read as Bayes.

    A token's vote z_j is the logit of p(1 | h_j). Views of a pair, independent given its label,
    say together

        logit = (1 + beta) sum_j a_j z_j - beta z_0 + c,    a = softmax_j(q . h_j)

    with weights a over the pair's own tokens, the prior's logit z_0 and a term c of [CLS] alone.
    Votes and c are linear in the hidden states. The product of a query and a key matrix is one
    matrix, so q is a linear map of [CLS] and the keys are the hidden states; a key's bias would
    change no softmax.

    beta is learned from 0, where the head is attention pooling and nothing else. z_0 is not
    learned, since c's bias could take its place: it is that of the labels that train. Nor does beta
    make the head say more than attention pooling can; it is the pace at which all votes grow at
    once.
    """

    prior: Tensor

    def __init__(self, config: MatchConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_samples = config.num_dropout_samples
        self.scale = width**-0.5
        self.query = Linear(width, width)
        self.vote = Linear(width, 1)
        self.cls = Linear(width, 1)
        self.beta = nn.Parameter(torch.zeros(1))
        self.register_buffer("prior", torch.zeros(1))
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, hidden: Tensor, attention_mask: Tensor, pair_cells: Tensor) -> Tensor:
        """Return logits of both labels, that of label 0 being 0: (B, 2), or (S, B, 2).

        The latter in training with several dropout samples; otherwise in fp32.

        Args:
            hidden: (N, D).
            attention_mask: (R, W), int64, pairs by number.
            pair_cells: (B,), int64, into N, the cell of each pair's [CLS].
        """
        belongs = belongs_to_pairs(attention_mask, pair_cells)  # (B, N)
        if not self.training:
            return self._logits(hidden.float(), belongs, pair_cells)
        samples = [
            self._logits(self.dropout(hidden), belongs, pair_cells) for _ in range(self.num_samples)
        ]
        return samples[0] if self.num_samples == 1 else torch.stack(samples)

    def _logits(self, hidden: Tensor, belongs: Tensor, pair_cells: Tensor) -> Tensor:
        cls = hidden.index_select(0, pair_cells)  # (B, D)
        scores = self.scale * (self.query(cls) @ hidden.T).float()  # (B, N)
        weights = scores.masked_fill(~belongs, -torch.inf).softmax(dim=1)
        pooled = weights @ self.vote(hidden).float()  # (B, 1)
        evidence = (1 + self.beta) * pooled - self.beta * self.prior
        return F.pad(evidence.to(hidden.dtype) + self.cls(cls), (1, 0))
