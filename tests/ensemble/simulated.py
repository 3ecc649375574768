"""Simulated views whose logits are exact, and what is known of them."""

from __future__ import annotations

import numpy as np
from scipy.special import logit

PRIOR = float(logit(0.3))


def simulated_views(rng, *, num_rows=4000, num_views=5, correlation=0.0, strength=1.0, prior=PRIOR):
    """Return labels (B,) and each view's exact logit (M, B): x = strength * y + noise."""
    labels = (rng.random(num_rows) < 1 / (1 + np.exp(-prior))).astype(np.int8)
    noise = np.sqrt(correlation) * rng.normal(size=num_rows)
    noise = noise + np.sqrt(1 - correlation) * rng.normal(size=(num_views, num_rows))
    return labels, prior + strength * (strength * labels + noise) - strength**2 / 2
