from __future__ import annotations

import numpy as np
import torch

from desmatch.data.batches import assemble
from desmatch.model.attention import ATTENTIONS
from desmatch.model.batch import lay_out
from desmatch.model.configuration import MatchConfig
from desmatch.model.heads import MatchForPairs
from desmatch.model.norms import NORMS
from desmatch.runs import seed_everything
from desmatch.schema import Special
from tests.conftest import encode_lists

SHAPE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 96,
    "type_vocab_size": 2,
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
EVERY_ENCODER = [
    {"position": position, "norm": norm} for position in sorted(ATTENTIONS) for norm in NORMS
]
PAIRS = [([7, 8, 9], [10]), ([11], [12, 13]), ([14, 15, 21, 22, 23], [16, 17, 18])]


def name_of(changes):
    """A test's name from the settings it changes."""
    return "-".join(str(value) for value in changes.values()) or "default"


def draw_parameters(model, seed=0):
    """Draw every parameter, the biases and the norms' scales too, and return the model."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(0.3 * noise + (parameter.mean() > 0.5))
    return model


def build(**changes):
    """A `MatchForPairs` of random parameters without dropout, in evaluation mode."""
    seed_everything(0)
    config = MatchConfig(**{**SHAPE, **NO_DROPOUT, **changes})
    return draw_parameters(MatchForPairs(config)).eval()


def draw_pairs(num_pairs, seed=0, longest=14):
    """Pairs of lists of random token ids."""
    rng = np.random.default_rng(seed)
    return [
        tuple(rng.integers(7, 40, rng.integers(1, longest + 1)).tolist() for _ in "ab")
        for _ in range(num_pairs)
    ]


def flat_batch(pairs):
    """Pairs with their special tokens, end to end."""
    rows = np.arange(len(pairs))
    return assemble(encode_lists(pairs), rows, np.zeros(len(pairs), bool))


def pad(flat):
    """One pair a row, as most would: (B, L) inputs, and the cells of the flat batch's tokens."""
    width = int(flat.lengths.max())
    within = np.concatenate([np.arange(length) for length in flat.lengths])
    cells = np.repeat(np.arange(len(flat.lengths)) * width, flat.lengths) + within
    input_ids = torch.full((len(flat.lengths), width), int(Special.PAD))
    input_ids.view(-1)[cells] = torch.from_numpy(flat.ids)
    mask = torch.zeros_like(input_ids)
    mask.view(-1)[cells] = 1
    return {"input_ids": input_ids, "attention_mask": mask}, cells


def packed_pairs(pairs=PAIRS, **options):
    """Pairs in rows, and the flat batch they come from."""
    flat = flat_batch(pairs)
    return flat, lay_out(flat, **options)


def gradients(module):
    """Gradients by name, of the parameters that got one."""
    return {
        name: parameter.grad
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def assert_same_tensors(actual, expected, *, tolerance=1e-5):
    """Compare two dictionaries of tensors, key by key."""
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            actual[name],
            tensor,
            atol=tolerance,
            rtol=tolerance,
            msg=lambda text, name=name: f"{name}: {text}",
        )
