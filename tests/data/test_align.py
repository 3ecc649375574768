from __future__ import annotations

import pytest

from desmatch.data.align import rank_tokens, read_reference_counts, read_reference_vocab
from desmatch.errors import UserError


def test_tokens_are_ranked_by_count_without_reserved_ones():
    vocab = {"[PAD]": 0, "[unused1]": 1, "[CLS]": 2, "a": 3, "b": 4, "c": 5, "d": 6}
    counts = {"[CLS]": 99, "a": 5, "b": 7, "c": 5, "d": 0, "elsewhere": 8}
    assert rank_tokens(vocab, counts).tolist() == [4, 3, 5]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[1]", "expected a JSON object from token to count"),
        ('{"a": -1}', "count of 'a': expected 0 or more, got -1"),
        ('{"a": "x"}', "count of 'a': expected 0 or more, got 'x'"),
        ('{"a": 1', "not valid JSON"),
    ],
)
def test_bad_counts_are_refused(tmp_path, content, reason):
    path = tmp_path / "counts.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"counts\.json") as raised:
        read_reference_counts(path)
    assert reason in str(raised.value)


def test_vocab_txt_is_read_row_by_row(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\r\n[UNK]\n\u2028\nx\n", encoding="utf-8", newline="")
    assert read_reference_vocab(path) == {"[PAD]": 0, "[UNK]": 1, "\u2028": 2, "x": 3}
    with pytest.raises(UserError, match=r"no such file; a checkpoint folder needs"):
        read_reference_vocab(tmp_path / "none.txt")
