r"""Texts to tokens: by rules that fit any language, or by a tokenizer of the user's.

The rules, `auto`: NFKC first, so that full-width and half-width forms are one token, as are letters
composed and decomposed. Then

| what | token |
|---|---|
| Han, kana, bopomofo, Thai, Lao, Khmer, Myanmar: no space between words | a character with marks |
| letters and digits of all other scripts, Hangul too | a run of them, with marks and joiners |
| anything else that is seen: punctuation, symbols, emoji | a grapheme cluster (UAX 29) |
| white space, controls, invisible formats | none: they end a token |

So `iPhone12很好!` is `iPhone12 很 好 !`, and a family emoji of five code points is one token. Case
is kept unless asked otherwise.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import regex

from desmatch.errors import UserError
from desmatch.runs import file_digest, value_digest

if TYPE_CHECKING:
    from collections.abc import Callable

AUTO = "auto"

SPACELESS = (
    r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
    "\N{KATAKANA-HIRAGANA PROLONGED SOUND MARK}"
)
JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
TOKEN = regex.compile(
    rf"[{SPACELESS}]\p{{M}}*"
    rf"|[[\p{{L}}\p{{N}}]--[{SPACELESS}]][[\p{{L}}\p{{N}}\p{{M}}{JOINERS}]--[{SPACELESS}]]*"
    r"|(?![\s\p{Cc}\p{Cf}])\X",
    regex.VERSION1,
)
ASCII_TOKEN = re.compile(r"[0-9A-Za-z]+|[!-/:-@\[-`{-~]")
"""What TOKEN finds in ASCII, three times as fast."""

TOKENIZER_FILES = ("tokenizer", "vocab", "merges", "special_tokens", "added_tokens", "spiece",
                   "sentencepiece")  # fmt: skip
"""How the names of the files begin that decide what a tokenizer's folder does."""


class Tokens(NamedTuple):
    """A way to cut texts."""

    split: Callable[[str], list[str]]
    identity: dict[str, Any]
    """What decides the tokens, as a key keeps it."""


def auto_tokens(text: str) -> list[str]:
    """Return the tokens of a text by the rules above."""
    if text.isascii():
        return ASCII_TOKEN.findall(text)
    tokens: list[str] = TOKEN.findall(unicodedata.normalize("NFKC", text))
    return tokens


def lower_tokens(text: str) -> list[str]:
    """Return the tokens of a text by the rules above, in lower case."""
    return auto_tokens(unicodedata.normalize("NFKC", text).lower())


def auto_split(*, lowercase: bool) -> Callable[[str], list[str]]:
    """Return the rules above, in lower case or with the case kept."""
    return lower_tokens if lowercase else auto_tokens


def load_tokens(name: str, *, lowercase: bool = False) -> Tokens:
    """Return the rules, or a tokenizer from a file or folder.

    Args:
        name: `auto`, a JSON file of `tokenizers`, or a folder of `transformers`.
        lowercase: For `auto`: all in lower case.

    Raises:
        UserError: There is no such tokenizer, or it cannot be loaded, or it decides the case.
    """
    if name == AUTO:
        return Tokens(
            auto_split(lowercase=lowercase),
            {"kind": AUTO, "rules": 1, "normalization": "NFKC", "lowercase": lowercase},
        )
    if lowercase:
        raise UserError("--lowercase is for --tokens auto; a tokenizer decides the case itself")
    path = Path(name)
    if not path.exists():
        raise UserError(
            f"--tokens {name}: no such file or folder; give auto, a tokenizer.json, or a folder "
            "that transformers' save_pretrained wrote"
        )
    try:
        split = _fast(path) if path.is_file() else _of_folder(path)
    except Exception as error:  # tokenizers raises Exception itself
        reason = str(error).partition("\n")[0]
        raise UserError(f"--tokens {name}: not a tokenizer that can be loaded ({reason})") from None
    return Tokens(split, {"kind": "tokenizer", "digest": _digest(path)})


def _of_folder(folder: Path) -> Callable[[str], list[str]]:
    """Load a folder, by `tokenizers` alone where it has such a file."""
    file = folder / "tokenizer.json"
    if file.is_file():
        return _fast(file)
    from transformers import AutoTokenizer  # takes seconds

    loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    split: Callable[[str], list[str]] = loaded.tokenize
    return split


def _fast(file: Path) -> Callable[[str], list[str]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def split(text: str) -> list[str]:
        tokens: list[str] = tokenizer.encode(text, add_special_tokens=False).tokens
        return tokens

    return split


def _digest(path: Path) -> str:
    """Return the sha256 of what decides a tokenizer's tokens."""
    if path.is_file():
        return file_digest(path)
    files = sorted(each for each in path.iterdir() if each.name.startswith(TOKENIZER_FILES))
    return value_digest({each.name: file_digest(each) for each in files})
