"""What hiding rare ids would buy, and what it would cost whoever trains on the data.

A treatment gives ids seen fewer than `min_count` times one number, or one of several (buckets,
dealt by a hash). It is measured on the numbered data themselves: treating numbers afterwards and
tokens before gives the same rows up to renaming.

The cost is in the AUC of a quick model, TF-IDF and logistic regression on the product and the
absolute difference of both texts' vectors, fitted on four folds of whole components of the query
graph and asked about the fifth. Folds and rows are the same for all treatments, so differences are
paired.

Shapes: B pairs, R labelled ones that are used, T texts, V distinct ids.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import numpy as np
from scipy.sparse import csr_array, hstack
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from desmatch.data.graph import build_graph
from desmatch.data.split import CUT, Folds, assign_folds
from desmatch.metrics.cross_fit import can_cross_fit, cross_fit
from desmatch.metrics.intervals import paired_bootstrap
from desmatch.metrics.roc import roc_auc
from desmatch.publish.attack import chance_placed, shares
from desmatch.publish.coded import NO_LABEL
from desmatch.publish.exposure import rows_with_lone_id
from desmatch.runs import generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from desmatch.publish.attack import Truth
    from desmatch.publish.coded import CodedPairs, Ints

NUM_FOLDS = 5
FEW_ROWS = 100
"""Of fewer labelled rows no AUC is worth its interval."""


class Treatment(NamedTuple):
    """What is done to rare ids."""

    min_count: int
    buckets: int = 1

    @property
    def name(self) -> str:
        """As an option of `desmatch anonymize` has it."""
        if self.min_count == 1:
            return "as they are"
        buckets = f" --rare-buckets {self.buckets}" if self.buckets > 1 else ""
        return f"--min-count {self.min_count}{buckets}"


TREATMENTS = tuple(
    Treatment(*each) for each in ((1,), (2,), (5,), (10,), (10, 100), (50,), (50, 100))
)


@dataclass(frozen=True)
class Judge:
    """Rows and folds that all treatments are judged on.

    Attributes:
        rows: (R,), which pairs.
        folds: Of these.
    """

    rows: Ints
    folds: Folds

    def scores(self, pairs: CodedPairs) -> NDArray[np.float64]:
        """(R,), what models that have not seen a row's texts say of it."""
        features, labels = _pair_features(pairs)[self.rows], pairs.labels[self.rows]

        def fit_and_apply(
            fitted: NDArray[np.bool_], applied: NDArray[np.bool_]
        ) -> NDArray[np.float64]:
            model = LogisticRegression(max_iter=1000).fit(features[fitted], labels[fitted])
            return np.asarray(model.decision_function(features[applied]), np.float64)

        return cross_fit(self.folds.fold, fit_and_apply)


def find_judge(pairs: CodedPairs, *, max_rows: int, seed: int) -> Judge | str:
    """Deal labelled rows to folds that share no text, or say why that cannot be done."""
    rows = np.flatnonzero(pairs.labels != NO_LABEL)
    if max_rows < 1:
        return "not asked for"
    if len(rows) < FEW_ROWS:
        return f"{len(rows)} labelled rows are too few; it takes {FEW_ROWS}"
    rng = generator(seed, "audit")
    rows = np.sort(rng.permutation(rows)[:max_rows])
    a, b = pairs.texts.reshape(2, -1)[:, rows]
    labels = pairs.labels[rows]
    try:
        folds = assign_folds(build_graph(a, b), labels, num_folds=NUM_FOLDS, rng=rng)
    except ValueError as error:
        return str(error)
    kept = folds.fold != CUT
    rows, folds = rows[kept], Folds(folds.fold[kept], folds.group[kept], 0)
    if not can_cross_fit(pairs.labels[rows], folds.fold):
        return "every fold needs rows of both labels"
    return Judge(rows, folds)


def _pair_features(pairs: CodedPairs) -> csr_array:
    """Return (B, 2V): product and absolute difference of both texts' TF-IDF vectors."""
    shape = len(pairs.offsets) - 1, len(pairs.ids)
    cells = np.ones(len(pairs.codes)), pairs.codes, pairs.offsets
    often = csr_array(cells, shape=shape, copy=True)  # what follows sums cells in place
    often.sum_duplicates()
    vectors = TfidfTransformer().fit_transform(often)
    a, b = vectors[: pairs.num_pairs], vectors[pairs.num_pairs :]
    return csr_array(hstack([a.multiply(b), abs(a - b)]))


def treat(pairs: CodedPairs, treatment: Treatment) -> tuple[CodedPairs, NDArray[np.bool_]]:
    """Give rare ids shared codes.

    Returns:
        The pairs, and (V,), which of their ids are shared by rare ones.
    """
    is_rare = pairs.counts < treatment.min_count
    bucket = np.array([crc32(each.encode()) % treatment.buckets for each in pairs.ids], np.int64)
    new_code = np.where(is_rare, len(pairs.ids) + bucket, np.arange(len(pairs.ids)))
    kept, codes = np.unique(new_code[pairs.codes], return_inverse=True)
    is_shared = kept >= len(pairs.ids)
    own = [pairs.ids[code] for code in kept[~is_shared]]
    ids = [*own, *(f"rare {number}" for number in range(int(is_shared.sum())))]
    return replace(pairs, ids=ids, codes=codes.astype(np.int64)), is_shared


def weigh_treatments(
    pairs: CodedPairs, truth: Truth | None, judge: Judge | str, *, seed: int
) -> list[dict[str, Any]]:
    """Return for each treatment that changes something what it hides, leaves and costs."""
    lines: list[dict[str, Any]] = []
    plain: NDArray[np.float64] | None = None
    for treatment in tqdm(TREATMENTS, desc="treatments", unit="treatment", leave=False):
        treated, is_shared = treat(pairs, treatment)
        if lines and not is_shared.any():
            continue
        line: dict[str, Any] = {
            "name": treatment.name,
            **treatment._asdict(),
            "distinct_ids": len(treated.ids),
            "shared_occurrences": float(is_shared[treated.codes].mean()),
            "lone_ids": int((treated.rows_with_id == 1).sum()),
            "rows_with_lone_id": rows_with_lone_id(treated),
            "lone_texts": int((treated.rows_with_text == 1).sum()),
            "placed": None if truth is None else _placed(truth, treatment),
        }
        if isinstance(judge, Judge):
            scores = judge.scores(treated)
            plain = scores if plain is None else plain
            line |= _cost(pairs.labels[judge.rows], plain, scores, judge.folds.group, seed)
        lines.append(line)
    return lines


def _placed(truth: Truth, treatment: Treatment) -> dict[str, float]:
    """Return the attacker's shares, of all ids and occurrences as there were before."""
    merged = truth.is_merged | (truth.counts < treatment.min_count)
    return shares(chance_placed(truth._replace(is_merged=merged)), truth.counts)


def _cost(
    labels: NDArray[np.int8],
    plain: NDArray[np.float64],
    scores: NDArray[np.float64],
    groups: Ints,
    seed: int,
) -> dict[str, Any]:
    interval = paired_bootstrap(
        labels, plain, scores, groups, rng=generator(seed, "audit", "interval"), num_samples=400
    ).interval
    auc = roc_auc(labels, scores)
    return {
        "auc": auc,
        "difference": auc - roc_auc(labels, plain),
        "difference_interval": [*interval],
    }
