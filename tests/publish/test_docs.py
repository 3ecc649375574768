from __future__ import annotations

import re
from pathlib import Path

import pytest

from desmatch.cli import main

DOCS = Path(__file__).parents[2] / "docs" / "publishing.md"


def options_of(verb, capsys):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    return set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help"}


def test_the_how_to_names_every_option_and_no_other(capsys):
    named = set(re.findall(r"--[a-z][a-z-]+", DOCS.read_text(encoding="utf-8")))
    options = options_of("anonymize", capsys) | options_of("audit", capsys)
    assert options - {"--seed"} == named
