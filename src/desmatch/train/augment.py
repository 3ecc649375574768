"""Rows that are made from labelled ones before training. Shapes: N new pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from desmatch.data.closure import close
from desmatch.data.graph import number_texts
from desmatch.model.batch import TrainingRows
from desmatch.prepare import Prepared, training_mask
from desmatch.runs import generator

if TYPE_CHECKING:
    from desmatch.recipe import Recipe


def closed_rows(prepared: Prepared, recipe: Recipe, *, fold: int) -> TrainingRows:
    """Return N labelled pairs that follow from those that train while `fold` is held out.

    Held-out rows are whole components, so no text of theirs is in a new pair. With `augment: none`
    there are none. A run's stages get the same pairs.
    """
    table = prepared.rows["train"].data.table.filter(training_mask(prepared, fold))
    if recipe.data.augment == "none":
        table = table.slice(0, 0)
    a, b = number_texts([table["a"], table["b"]])
    new = close(
        a,
        b,
        np.asarray(table["label"]),
        cap=recipe.data.augment_cap,
        rng=generator(recipe.seed, "closure"),
    )
    texts = pc.unique(pa.chunked_array([*table["a"].chunks, *table["b"].chunks], pa.string()))
    pairs = prepared.vocabulary.encode(texts.take(pa.array(new.a)), texts.take(pa.array(new.b)))
    return TrainingRows(pairs, new.labels)
