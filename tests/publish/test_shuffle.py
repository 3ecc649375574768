from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from desmatch.publish import shuffle
from desmatch.publish.shuffle import shuffle_lines


def shuffled(path, lines, seed, part_bytes):
    path.write_text("".join(f"{line}\n" for line in lines))
    shuffle_lines(path, rng=np.random.default_rng(seed), part_bytes=part_bytes)
    assert [*path.parent.iterdir()] == [path]
    return path.read_text().splitlines()


@pytest.mark.parametrize("part_bytes", [7, 1000, 1 << 20])
def test_every_line_stays_and_the_seed_decides_the_order(tmp_path, part_bytes):
    lines = [str(number) for number in range(500)]
    first, again, other = (
        shuffled(tmp_path / "rows", lines, seed, part_bytes) for seed in (1, 1, 2)
    )
    assert sorted(first) == sorted(other) == sorted(lines)
    assert first == again
    assert len({tuple(lines), tuple(first), tuple(other)}) == 3


def test_no_more_files_are_open_than_a_process_may_have(tmp_path, monkeypatch):
    monkeypatch.setattr(shuffle, "MOST_PARTS", 3)
    lines = [str(number) for number in range(100)]
    assert sorted(shuffled(tmp_path / "rows", lines, 0, 1)) == sorted(lines)


def test_every_order_is_as_likely_as_any_other(tmp_path):
    found = Counter(
        tuple(shuffled(tmp_path / "rows", "abc", seed, part_bytes=3)) for seed in range(240)
    )
    assert set(found) == set(permutations("abc"))
    chi_square = sum((count - 40) ** 2 / 40 for count in found.values())
    assert chi_square < 20.5  # 99.9 % of a chi-square law of 5 degrees of freedom
