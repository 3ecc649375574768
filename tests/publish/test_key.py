from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import pytest

from desmatch.disk import DiskError
from desmatch.errors import UserError
from desmatch.publish import key as key_module
from desmatch.publish.key import Key, extend_key, open_key, read_key, read_secret
from desmatch.publish.numbers import COLLISION

SECRET = bytes(32)
TOKENS = {"kind": "auto"}


def key_of(*numbers, secret=SECRET, tokens=TOKENS):
    return Key(secret=secret, tokens=tokens, numbers={f"w{number}": number for number in numbers})


def test_a_key_comes_back_as_it_was(tmp_path):
    key = Key(secret=SECRET, tokens=TOKENS, numbers={"好": "7", '"\n': "8"}, rare=("9",))
    assert extend_key(tmp_path / "deep" / "k", key) == 2
    assert read_key(tmp_path / "deep" / "k") == key


def test_only_its_owner_reads_a_key_from_its_first_byte(tmp_path, monkeypatch):
    modes = []
    monkeypatch.setattr(
        key_module.os, "fsync", lambda descriptor: modes.append(os.fstat(descriptor).st_mode)
    )
    before = os.umask(0)
    try:
        extend_key(tmp_path / "k", key_of("1"))
        extend_key(tmp_path / "k", key_of("2"))
    finally:
        os.umask(before)
    modes.append((tmp_path / "k").stat().st_mode)
    assert [stat.S_IMODE(mode) for mode in modes] == [0o600] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_another_day_adds_its_tokens_and_loses_none(tmp_path):
    assert extend_key(tmp_path / "k", key_of("1", "2")) == 2
    assert extend_key(tmp_path / "k", key_of("2", "3")) == 3
    assert read_key(tmp_path / "k").numbers == {"w1": "1", "w2": "2", "w3": "3"}


def test_a_link_to_a_key_stays_a_link(tmp_path):
    extend_key(tmp_path / "k", key_of("1"))
    (tmp_path / "link").symlink_to(tmp_path / "k")
    assert extend_key(tmp_path / "link", key_of("2")) == 2
    assert (tmp_path / "link").is_symlink()
    assert len(read_key(tmp_path / "k").numbers) == 2


EXTEND_OFTEN = """
import sys
from pathlib import Path
from desmatch.publish.key import Key, extend_key
for number in range(int(sys.argv[2]), int(sys.argv[2]) + 20):
    numbers = {f"w{number}": str(number)}
    extend_key(Path(sys.argv[1]), Key(secret=bytes(32), tokens={"kind": "auto"}, numbers=numbers))
"""


def test_two_runs_that_extend_a_key_at_once_lose_nothing(tmp_path):
    words = [sys.executable, "-c", EXTEND_OFTEN, str(tmp_path / "k")]
    runs = [subprocess.Popen([*words, first]) for first in ("0", "100")]
    assert [run.wait() for run in runs] == [0, 0]
    assert len(read_key(tmp_path / "k").numbers) == 40


def test_an_unwritten_key_leaves_the_old_one(tmp_path, monkeypatch):
    extend_key(tmp_path / "k", key_of("1"))

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(key_module.os, "fsync", fail)
    with pytest.raises(DiskError, match="No space"):
        extend_key(tmp_path / "k", key_of("2"))
    assert read_key(tmp_path / "k").numbers == {"w1": "1"}
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_a_token_of_another_day_with_the_same_number_is_refused(tmp_path):
    extend_key(tmp_path / "k", key_of("1"))
    with pytest.raises(UserError, match=COLLISION):
        extend_key(tmp_path / "k", Key(secret=SECRET, tokens=TOKENS, numbers={"other": "1"}))
    assert read_key(tmp_path / "k").numbers == {"w1": "1"}


def test_a_new_key_has_the_secret_or_a_random_one(tmp_path):
    assert open_key(tmp_path / "k", secret=SECRET, tokens=TOKENS).secret == SECRET
    random = {open_key(tmp_path / "k", secret=None, tokens=TOKENS).secret for _ in range(3)}
    assert sorted(map(len, random)) == [32, 32, 32]
    assert not (tmp_path / "k").exists()


def test_an_old_key_goes_on_with_its_secret_and_its_tokens_alone(tmp_path):
    extend_key(tmp_path / "k", key_of("1"))
    assert open_key(tmp_path / "k", secret=None, tokens=TOKENS).secret == SECRET
    with pytest.raises(UserError, match="is the key of another secret"):
        open_key(tmp_path / "k", secret=b"x" * 32, tokens=TOKENS)
    with pytest.raises(UserError, match="cut into tokens in another way"):
        open_key(tmp_path / "k", secret=None, tokens={"kind": "tokenizer"})


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"[]", b"{}", b'{"format": "desmatch key 9"}', b"-----BEGIN KEY-----",
     json.dumps({"format": "desmatch key 1", "secret": "geheim", "tokens": {}, "numbers": {},
                 "rare": []}).encode()],
)  # fmt: skip
def test_a_file_that_is_no_key_is_refused_and_stays(tmp_path, content):
    path = tmp_path / "k"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(UserError) as caught:
        open_key(path, secret=SECRET, tokens=TOKENS)
    assert f"{path}: not a key of this version" in str(caught.value)
    assert "geheim" not in str(caught.value)
    assert path.read_bytes() == content


def test_a_key_or_a_secret_that_others_may_read_is_refused(tmp_path):
    extend_key(tmp_path / "k", key_of("1"))
    (tmp_path / "k").chmod(0o640)
    for read in (read_key, read_secret):
        with pytest.raises(UserError, match=r"others may read it \(mode 0640\); chmod 600"):
            read(tmp_path / "k")


def test_a_folder_is_no_key(tmp_path):
    with pytest.raises(UserError, match="expected a file, got a folder"):
        open_key(tmp_path, secret=None, tokens=TOKENS)


def test_a_missing_key_is_named(tmp_path):
    with pytest.raises(UserError, match="no such file; name the key"):
        read_key(tmp_path / "k")


def test_a_secret_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("DESMATCH_SECRET", raising=False)
    assert read_secret(None) is None
    monkeypatch.setenv("DESMATCH_SECRET", "x" * 32)
    assert read_secret(None) == b"x" * 32
    path = tmp_path / "s"
    path.write_bytes(b"y" * 40 + b"\n")
    path.chmod(0o600)
    assert read_secret(path) == b"y" * 40
    with pytest.raises(UserError, match="no such file"):
        read_secret(tmp_path / "none")


def test_a_short_secret_is_refused_and_not_shown(monkeypatch):
    monkeypatch.setenv("DESMATCH_SECRET", "geheim")
    with pytest.raises(UserError) as caught:
        read_secret(None)
    assert "expected a secret of 32 bytes or more, got 6" in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_a_key_shows_neither_secret_nor_tokens():
    assert "w1" not in repr(key_of("1"))
    assert "x00" not in repr(key_of("1"))
