"""The encoder once more, for one text alone, with loops: slow and obvious.

Shapes: L tokens, D hidden, d width of a head.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F


def encode(model, ids, types=None):
    """(L,) token ids of one text to (L, D), with the parameters of a `MatchModel`."""
    config, embeddings = model.config, model.embeddings
    types = torch.zeros_like(ids) if types is None else types
    x = embeddings.word.weight[ids] + embeddings.token_type.weight[types]
    if config.position == "absolute":
        x = x + embeddings.position.weight[: len(ids)]
    x = layer_norm(x, embeddings.norm)
    for layer in model.layers:
        attention, block = layer.attention, layer.feed_forward
        x = residual(x, lambda y, a=attention: attend(y, a, config), layer.attention_norm, config)
        x = residual(x, lambda y, b=block: feed_forward(y, b), layer.feed_forward_norm, config)
    return layer_norm(x, model.final_norm) if config.norm == "pre" else x


def layer_norm(x, norm):
    """Mean 0 and variance 1 over D, then scale and bias."""
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = (centred**2).mean(dim=-1, keepdim=True)
    return centred / torch.sqrt(variance + 1e-12) * norm.weight + norm.bias


def residual(x, branch, norm, config):
    """A branch beside its straight path."""
    if config.norm == "pre":
        return x + branch(layer_norm(x, norm))
    alpha = (2 * config.num_hidden_layers) ** 0.25 if config.norm == "deepnorm" else 1.0
    return layer_norm(alpha * x + branch(x), norm)


def feed_forward(x, block):
    """Two matrices with the exact GELU in between."""
    wide = x @ block.expand.weight.T + block.expand.bias
    wide = wide * 0.5 * (1 + torch.erf(wide / math.sqrt(2)))
    return wide @ block.contract.weight.T + block.contract.bias


def attend(x, attention, config):
    """(L, D) to (L, D): head by head, query by query."""
    d = config.hidden_size // config.num_attention_heads
    projected = x @ attention.qkv.weight.T + attention.qkv.bias
    heads = []
    for head in range(config.num_attention_heads):
        columns = slice(head * d, (head + 1) * d)
        query, key, value = (part[:, columns] for part in projected.chunk(3, dim=1))
        if config.position == "rotary":
            query, key = turn(query), turn(key)
        rows = [look(i, query, key, value, config.position == "relative") for i in range(len(x))]
        heads.append(torch.stack(rows))
    return torch.cat(heads, dim=1) @ attention.output.weight.T + attention.output.bias


def look(i, query, key, value, is_relative):
    """What query i takes of all values, (d,)."""
    d = query.shape[1]
    if is_relative:
        sinusoids = torch.stack([sinusoid(j - i, d) for j in range(len(key))])
        key, value = key + sinusoids, value + sinusoids
    return F.softmax(key @ query[i] / math.sqrt(d), dim=0) @ value


@cache
def sinusoid(distance, d):
    """NEZHA's fixed vector of a distance clipped to 64 both ways, the distance counted from 0."""
    number = max(-64, min(64, distance)) + 64
    entries = []
    for k in range(d // 2):
        angle = number / 10000 ** (2 * k / d)
        entries += [math.sin(angle), math.cos(angle)]
    return torch.tensor(entries)


def turn(x):
    """RoFormer's rotation of (L, d): at position p dimensions k and k + d/2 turn by p theta_k."""
    d = x.shape[1]
    turned = x.clone()
    for p in range(len(x)):
        for k in range(d // 2):
            angle = p / 10000 ** (2 * k / d)
            cos, sin = math.cos(angle), math.sin(angle)
            first, second = x[p, k], x[p, k + d // 2]
            turned[p, k] = first * cos - second * sin
            turned[p, k + d // 2] = first * sin + second * cos
    return turned
