from __future__ import annotations

import hashlib
import hmac

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from desmatch.errors import UserError
from desmatch.publish import numbers
from desmatch.publish.numbers import Numbering

SECRET = bytes(range(32))
GOLDEN = {
    "42": "2038086258714968312",
    "hello": "1045454595890577058",
    "好": "7396052681289275147",
    "👩‍👩‍👧": "960289517180467159",
}


def test_numbers_of_a_secret_stay_the_same_in_every_version():
    """A changed number would part the files of one day from those of another."""
    numbering = Numbering(SECRET, rare_buckets=2)
    assert {token: numbering[token] for token in GOLDEN} == GOLDEN
    assert numbering.rare == ("3426794878834854932", "6024857499695359123")
    assert [numbering.rare.index(numbering.rare_number(token)) for token in GOLDEN] == [0, 1, 1, 1]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_number_is_the_start_of_an_hmac_of_the_token_alone(token):
    message = b"desmatch/token/1\0" + token.encode()
    digest = hmac.new(SECRET, message, hashlib.sha256).digest()
    expected = int.from_bytes(digest[:8], "big") // 2
    assert Numbering(SECRET)[token] == str(expected)
    assert 0 <= expected < 2**63


def test_numbers_do_not_depend_on_what_came_before():
    words = [f"w{k}" for k in range(100)]
    one, other = Numbering(SECRET), Numbering(SECRET, rare_buckets=3)
    assert [one[word] for word in words] == [other[word] for word in reversed(words)][::-1]


def test_another_secret_gives_other_numbers():
    one, other = Numbering(SECRET), Numbering(SECRET[::-1])
    words = [f"w{k}" for k in range(1000)]
    assert not {one[word] for word in words} & {other[word] for word in words}


def test_numbers_tell_nothing_of_the_order_of_alphabet_or_appearance():
    numbering = Numbering(SECRET)
    found = [int(numbering[f"{k:05}"]) for k in range(2000)]
    assert abs(kendalltau(range(2000), found).statistic) < 4 * np.sqrt(2 / (9 * 2000))
    assert abs(np.mean(found) / 2**62 - 1) < 0.05


def test_a_collision_is_refused_and_shows_no_token(monkeypatch):
    monkeypatch.setattr(numbers, "NUMBER_BITS", 4)
    numbering = Numbering(SECRET)
    words = [f"geheim{k}" for k in range(17)]
    with pytest.raises(UserError) as caught:
        [*map(numbering.__getitem__, words)]
    assert str(caught.value) == numbers.COLLISION
    assert "geheim" not in str(caught.value)


def test_rare_tokens_share_as_many_numbers_as_there_are_buckets():
    numbering = Numbering(SECRET, rare_buckets=5)
    found = {numbering.rare_number(f"w{k}") for k in range(200)}
    assert found == set(numbering.rare)
    assert len(found) == 5
