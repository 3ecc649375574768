from __future__ import annotations

import subprocess
import sys


def test_a_deck_has_thirty_kills_and_five_thousand_files_in_an_order_of_its_seed(soak):
    main = soak.main
    deck = main.deal(3, 0)
    assert deck.count("kill") == 30
    assert deck.count("fuzz") * main.FUZZ_CASES == 5000
    assert deck == main.deal(3, 0)
    assert deck != main.deal(3, 1)


def test_it_says_what_it_plays(soak):
    script = soak.kill.__file__.replace("soak_kill", "soak")
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0
    assert "--quick" in done.stdout


def test_the_table_has_a_row_for_each_kind_that_was_played(soak):
    main = soak.main
    each = {"kind": "kill", "seconds": 1.25, "problem": "", "memory_mib": 9.0}
    rows = main.table([each, {**each, "problem": "lost", "seconds": 3.0}])
    assert rows == [{"kind": "kill", "episodes": 2, "passed": 1, "failed": 1, "slowest_s": 3.0,
                     "largest_mib": 9.0}]  # fmt: skip
