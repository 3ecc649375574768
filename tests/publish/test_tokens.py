from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from desmatch.errors import UserError
from desmatch.publish.tokens import TOKEN, auto_tokens, load_tokens

WIDE = "\uff21\uff11\uff12\uff0c"
"""A, 1, 2 and a comma as wide as a Chinese character."""
FAMILY, FLAG, THUMB = "👩‍👩‍👧", "🇩🇪", "👍🏽"


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("iPhone12很好!", ["iPhone12", "很", "好", "!"]),
        ("花呗Pro版", ["花", "呗", "Pro", "版"]),
        ("コーヒーを飲む", ["コ", "ー", "ヒ", "ー", "を", "飲", "む"]),
        ("안녕하세요 세계", ["안녕하세요", "세계"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
        ("می‌خواهم", ["می‌خواهم"]),
        (f"{WIDE}\N{LATIN SMALL LIGATURE FI}ne", ["A12", ",", "fine"]),
        ("café", ["caf\N{LATIN SMALL LETTER E WITH ACUTE}"]),
        ("don't pay 3.14%", ["don", "'", "t", "pay", "3", ".", "14", "%"]),
        (f"{FAMILY}{THUMB}{FLAG}x", [FAMILY, THUMB, FLAG, "x"]),
        ("a\u200bb\ufeffc\u00add\te", ["a", "b", "c", "d", "e"]),
        (" \u3000\u200b\n", []),
    ],
)
def test_auto_cuts_by_script(text, tokens):
    assert auto_tokens(text) == tokens


@given(st.text())
def test_auto_loses_nothing_that_is_seen(text):
    def seen(part):
        return "".join(
            char
            for char in part
            if not char.isspace() and unicodedata.category(char) not in ("Cc", "Cf")
        )

    tokens = auto_tokens(text)
    assert all(token and not any(map(str.isspace, token)) for token in tokens)
    assert seen("".join(tokens)) == seen(unicodedata.normalize("NFKC", text))


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_is_cut_as_any_other_text(text):
    assert auto_tokens(text) == TOKEN.findall(text)


@given(st.text())
def test_composed_and_decomposed_texts_have_the_same_tokens(text):
    assert auto_tokens(unicodedata.normalize("NFD", text)) == auto_tokens(text)


def test_lowercase_makes_one_token_of_two():
    assert load_tokens("auto", lowercase=True).split(f"Pay PAY {WIDE[0]}y A") == [
        "pay",
        "pay",
        "ay",
        "a",
    ]


@pytest.fixture
def tokenizer():
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "hello": 1, "world": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.enable_truncation(1)
    return tokenizer


def test_a_tokenizer_of_the_user_cuts_from_a_file_or_a_folder(tmp_path, tokenizer):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    for place in (path, tmp_path):
        tokens = load_tokens(str(place))
        assert tokens.split("hello you world") == ["hello", "[UNK]", "world"]
        assert tokens.identity["kind"] == "tokenizer"
    before = load_tokens(str(tmp_path)).identity
    path.write_text(json.dumps(json.loads(path.read_text()) | {"truncation": None}))
    assert load_tokens(str(tmp_path)).identity != before


def test_a_folder_of_transformers_needs_no_tokenizer_json(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "play", "##ing", "好"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    tokens = load_tokens(str(tmp_path))
    assert tokens.split("Playing 好") == ["play", "##ing", "好"]


def test_transformers_and_tokenizers_cut_alike(tmp_path, tokenizer):
    tokenizer.no_truncation()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path)
    assert load_tokens(str(tmp_path)).split("world hello") == ["world", "hello"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [("none", None, "no such file or folder"), ("bad", "{}", "not a tokenizer that can be loaded")],
)
def test_a_wrong_tokenizer_is_refused(tmp_path, name, content, reason):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=reason):
        load_tokens(str(tmp_path / name))


def test_a_tokenizer_decides_the_case_itself(tmp_path):
    with pytest.raises(UserError, match="--lowercase is for --tokens auto"):
        load_tokens(str(tmp_path), lowercase=True)
