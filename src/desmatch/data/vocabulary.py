"""Raw ids to token ids: counted, sorted by frequency, and encoded by one function for all uses.

Shapes: B pairs, N ids of all texts laid end to end, V vocabulary.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

from desmatch.data.counts import IdCounts
from desmatch.data.read import split_ids
from desmatch.errors import UserError
from desmatch.recipe import DataConfig
from desmatch.runs import read_json_object, write_json, write_text
from desmatch.schema import Special

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

NUM_SPECIAL = len(Special)
VOCABULARY = "vocabulary.json"

FEW_PAIRS = 8
"""So many are encoded without arrays: what a service is asked at a time."""


class EncodedPairs(NamedTuple):
    """Pairs as token ids, without special tokens.

    Attributes:
        ids: (N,), int32, all texts end to end.
        offsets: (2B + 1,), int64; text 2i is `a` of pair i, text 2i + 1 is its `b`, so that
            the two change places by adding a bit.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @property
    def num_pairs(self) -> int:
        """B."""
        return (len(self.offsets) - 1) // 2

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(B,), tokens of [CLS] a [SEP] b [SEP]."""
        return self.offsets[2::2] - self.offsets[:-2:2] + 3

    def take(self, rows: NDArray[np.int64]) -> EncodedPairs:
        """Return the pairs at `rows`."""
        texts = np.stack([2 * rows, 2 * rows + 1], axis=1).ravel()
        lengths = self.offsets[texts + 1] - self.offsets[texts]
        return EncodedPairs(*take_texts(RaggedArray(*self), texts, lengths))


def joined(parts: list[EncodedPairs]) -> EncodedPairs:
    """Lay encoded pairs of several files one after the other."""
    ends = np.cumsum([0, *(part.offsets[-1] for part in parts)])
    offsets = [part.offsets[1:] + start for part, start in zip(parts, ends[:-1], strict=True)]
    return EncodedPairs(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([np.zeros(1, np.int64), *offsets]),
    )


class PairParts(NamedTuple):
    """Encoded pairs of several files, one after the other, each where it lies.

    Attributes:
        parts: Some may be mapped from a disk: only what is taken is read.
    """

    parts: tuple[EncodedPairs, ...]

    @property
    def num_pairs(self) -> int:
        """Of all parts."""
        return sum(part.num_pairs for part in self.parts)

    def take(self, rows: NDArray[np.int64]) -> EncodedPairs:
        """Return the pairs at `rows`, which are counted through all parts."""
        ends = np.cumsum([part.num_pairs for part in self.parts])
        part_of_row = np.searchsorted(ends, rows, side="right")
        bounds = np.empty((len(rows), 3), np.int64)  # of each pair: start of a, of b, end
        for number in np.unique(part_of_row):
            here = part_of_row == number
            part = self.parts[number]
            local = rows[here] - ends[number] + part.num_pairs
            bounds[here] = part.offsets[2 * local[:, None] + np.arange(3)]
        lengths = bounds[:, 2] - bounds[:, 0]
        source = np.repeat(bounds[:, 0], lengths) + positions_within(lengths)
        part_of_id = np.repeat(part_of_row, lengths)
        ids = np.empty(len(source), np.int32)
        for number in np.unique(part_of_row):
            here = part_of_id == number
            ids[here] = self.parts[number].ids[source[here]]
        text_lengths = np.diff(bounds, axis=1).ravel()
        return EncodedPairs(ids, np.concatenate([[0], np.cumsum(text_lengths)]))


def thinned(pairs: EncodedPairs | PairParts, most: int) -> EncodedPairs:
    """Return every k-th pair, with the least k that leaves `most` or fewer: for figures of many."""
    step = -(-pairs.num_pairs // most) or 1
    return pairs.take(np.arange(0, pairs.num_pairs, step))


class RaggedArray(NamedTuple):
    """Texts of different lengths end to end; `values` (N,), `offsets` (texts + 1,)."""

    values: NDArray[np.int32]
    offsets: NDArray[np.int64]


def positions_within(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0, 1, ... for each of several stretches laid end to end: (sum of lengths,)."""
    starts = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) - np.repeat(starts, lengths)


def take_texts(
    texts: RaggedArray, order: NDArray[np.int64], lengths: NDArray[np.int64]
) -> RaggedArray:
    """Return the first `lengths` ids of the texts in `order`; both are (texts,)."""
    source = np.repeat(texts.offsets[order], lengths) + positions_within(lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return RaggedArray(texts.values[source], offsets)


def truncated_lengths(
    a: NDArray[np.int64], b: NDArray[np.int64], room: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Shorten the longer text first until both fit into `room` ids: `longest_first` of tokenizers.

    Where both are longer than half of the room, the longer one (of equals, `b`) gets the odd id.
    """
    shorter, longer = np.minimum(a, b), np.maximum(a, b)
    cut_longer = np.minimum(longer, np.maximum(shorter, room - shorter))
    both = shorter + cut_longer > room
    cut_shorter = np.where(both, room // 2, shorter)
    cut_longer = np.where(both, room - room // 2, cut_longer)
    is_a_longer = a > b
    return (
        np.where(is_a_longer, cut_longer, cut_shorter),
        np.where(is_a_longer, cut_shorter, cut_longer),
    )


@dataclass(frozen=True)
class Vocabulary:
    """The map from raw ids to token ids, with everything that encoding depends on.

    Attributes:
        ids: The frequent raw ids, most frequent first.
        counts: Their frequencies in the same order.
        config: Threshold, truncation and treatment of rare ids.
    """

    ids: tuple[str, ...]
    counts: tuple[int, ...]
    config: DataConfig

    @property
    def first_id(self) -> int:
        """Token id of the most frequent raw id: special tokens and placeholders come before."""
        placeholders = self.config.num_placeholders if self.config.rare == "placeholder" else 0
        return NUM_SPECIAL + placeholders

    @property
    def size(self) -> int:
        """V."""
        return self.first_id + len(self.ids)

    @property
    def tokens(self) -> list[str]:
        """The text of every token, by token id."""
        placeholders = [f"[RARE{k}]" for k in range(1, self.first_id - NUM_SPECIAL + 1)]
        return [*(special.token for special in Special), *placeholders, *self.ids]

    def encode(self, a: Any, b: Any) -> EncodedPairs:  # noqa: ANN401 - any Arrow or list of texts
        """Encode pairs: the one way from text to token ids, in training, prediction and serving.

        Args:
            a: (B,), Arrow array or sequence of texts, ids separated by single spaces.
            b: (B,), the same for the second texts.
        """
        if isinstance(a, list) and len(a) <= FEW_PAIRS:
            return self._encode_few(a, b)
        dictionary, codes, offsets = split_ids(_one_array(a, b))
        num_pairs = (len(offsets) - 1) // 2
        lengths = np.diff(offsets)
        kept_a, kept_b = truncated_lengths(
            lengths[:num_pairs], lengths[num_pairs:], self.config.max_length - 3
        )
        order = np.arange(2 * num_pairs).reshape(2, num_pairs).T.ravel()
        kept = np.stack([kept_a, kept_b], axis=1).ravel()
        texts = take_texts(RaggedArray(codes, offsets), order, kept)
        return EncodedPairs(self._token_ids(texts, dictionary), texts.offsets)

    def _encode_few(self, a: list[str], b: list[str]) -> EncodedPairs:
        """Return what `encode` does, text by text: arrays of a few ids cost more than they save."""
        ids: list[int] = []
        offsets, room = [0], self.config.max_length - 3
        for pair in zip(a, b, strict=True):
            sides = [text.split(" ") for text in pair]
            first, second = map(len, sides)
            if first + second > room:
                kept = truncated_lengths(np.array([first]), np.array([second]), room)
                sides = [side[: int(length)] for side, (length,) in zip(sides, kept, strict=True)]
            placeholder_of = self._placeholder_of()
            for side in sides:
                ids += [self._rows.get(each) or placeholder_of(each) for each in side]
                offsets.append(len(ids))
        return EncodedPairs(np.array(ids, np.int32), np.array(offsets, np.int64))

    def _placeholder_of(self) -> Callable[[str], int]:
        """Return what turns the rare ids of one pair, in their order, into token ids."""
        places: dict[str, int] = {}
        most = self.first_id - NUM_SPECIAL

        def placeholder_of(raw_id: str) -> int:
            place = places.setdefault(raw_id, len(places))
            return NUM_SPECIAL + place if place < most else int(Special.UNK)

        return placeholder_of

    def _token_ids(self, texts: RaggedArray, dictionary: pa.Array) -> NDArray[np.int32]:
        rows, unknown = self._rows, int(Special.UNK)
        distinct = (rows.get(raw_id, unknown) for raw_id in dictionary.to_pylist())
        ids = np.fromiter(distinct, np.int32, len(dictionary))[texts.values]
        if self.config.rare == "placeholder":
            _put_placeholders(ids, texts, self.config.num_placeholders)
        return ids

    @cached_property
    def _rows(self) -> dict[str, int]:
        """Raw id to token id: for one pair a service asks it a dozen times and no more."""
        return {raw_id: row for row, raw_id in enumerate(self.ids, start=self.first_id)}

    def oov_share(self, counts: IdCounts) -> float:
        """Return the share of ids, as often as they were seen, that are rare or unknown."""
        is_known = np.asarray(pc.is_in(counts.ids, value_set=pa.array(self.ids, pa.string())))
        seen = int(counts.counts.sum())
        return 1 - int(counts.counts[is_known].sum()) / seen if seen else 0.0

    def save(self, folder: Path) -> None:
        """Write vocabulary.json and a fast tokenizer that `AutoTokenizer` loads.

        The tokenizer gives the same token ids as `encode`; it knows no placeholders, so with
        `rare: placeholder` it gives [UNK] in their place.
        """
        value = {"config": asdict(self.config), "ids": self.ids, "counts": self.counts}
        write_json(folder / VOCABULARY, value)
        write_text(folder / "tokenizer.json", self._tokenizer().to_str(pretty=True))
        names = {
            f"{name.lower()}_token": Special[name].token
            for name in ("PAD", "UNK", "CLS", "SEP", "MASK")
        }
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": self.config.max_length,
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
            **names,
        }
        write_text(folder / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")

    def _tokenizer(self) -> Tokenizer:
        vocab = {token: row for row, token in enumerate(self.tokens)}
        tokenizer = Tokenizer(WordLevel(vocab, unk_token=Special.UNK.token))
        tokenizer.pre_tokenizer = WhitespaceSplit()
        tokenizer.add_special_tokens(self.tokens[: self.first_id])
        tokenizer.post_processor = TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:0 [SEP]:0",
            special_tokens=[("[CLS]", int(Special.CLS)), ("[SEP]", int(Special.SEP))],
        )
        return tokenizer

    @classmethod
    def load(cls, folder: Path) -> Vocabulary:
        """Load what `save` wrote.

        Raises:
            UserError: The file is missing, damaged, or of another version.
        """
        path = folder / VOCABULARY
        value = read_json_object(path)
        try:
            config = DataConfig(**value["config"])
            ids, counts = tuple(value["ids"]), tuple(value["counts"])
            pa.array(ids, pa.string()), pa.array(counts, pa.int64())
        except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
            raise UserError(f"{path}: no vocabulary of this version ({error}); make it again with "
                            "the stage or the export that it lies in") from None  # fmt: skip
        return cls(ids, counts, config)


def fit_vocabulary(counts: Mapping[str, int], config: DataConfig) -> Vocabulary:
    """Keep the ids seen `min_count` times or more, by count, then by id.

    Ids that are all decimal numbers are compared as numbers, otherwise as texts. An id that is
    spelled like a special token cannot be told from it and is treated as rare.
    """
    seen = IdCounts.of(counts)
    special = pa.array([special.token for special in Special])
    is_reserved = pc.or_(
        pc.is_in(seen.ids, value_set=special), pc.starts_with(seen.ids, pattern="[RARE")
    )
    is_kept = pc.and_not(pa.array(seen.counts >= config.min_count), is_reserved)
    kept = pa.table({"id": seen.ids, "count": seen.counts}).filter(is_kept)
    keys = [("count", "descending"), ("id", "ascending")]
    if pc.all(pc.ascii_is_decimal(kept["id"])).as_py():
        digits = pc.ascii_ltrim(kept["id"], characters="0")  # of any length, beyond 64 bits
        kept = kept.append_column("digits", digits)
        kept = kept.append_column("length", pc.binary_length(digits))
        keys[1:1] = [("length", "ascending"), ("digits", "ascending")]
    kept = kept.take(pc.sort_indices(kept, sort_keys=keys))
    return Vocabulary(tuple(kept["id"].to_pylist()), tuple(kept["count"].to_pylist()), config)


def _one_array(a: Any, b: Any) -> pa.ChunkedArray:  # noqa: ANN401 - any Arrow or list of texts
    chunks: list[pa.Array] = []
    for texts in (a, b):
        if isinstance(texts, pa.ChunkedArray):
            chunks.extend(texts.chunks)
        else:
            chunks.append(pa.array(texts, pa.string()))
    return pa.chunked_array(chunks, pa.string())


def _put_placeholders(ids: NDArray[np.int32], texts: RaggedArray, num_placeholders: int) -> None:
    """Turn the k-th different [UNK] of a pair into placeholder k, in place."""
    rare = np.flatnonzero(ids == Special.UNK)
    pair_of_text = np.arange(len(texts.offsets) - 1) // 2
    pair = np.repeat(pair_of_text, np.diff(texts.offsets))[rare]
    key = pair.astype(np.int64) << 32 | texts.values[rare]
    distinct, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    by_place = np.argsort(first)  # pairs are in order, so places are too
    pairs_by_place = (distinct >> 32)[by_place]
    starts = np.searchsorted(pairs_by_place, pairs_by_place, side="left")
    number = np.empty(len(distinct), np.int64)
    number[by_place] = np.arange(len(distinct)) - starts
    placeholder = np.where(number < num_placeholders, NUM_SPECIAL + number, int(Special.UNK))
    ids[rare] = placeholder[inverse]
