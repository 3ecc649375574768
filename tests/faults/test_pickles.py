from __future__ import annotations

import pickle
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import desmatch
from desmatch.digests import digest_init
from desmatch.errors import UserError
from desmatch.matcher import PairMatcher
from desmatch.model.convert import read_config
from desmatch.recipe import ModelConfig, Recipe
from desmatch.runs import write_json
from desmatch.seals import seal

SOURCE = Path(desmatch.__file__).parent
UNSAFE = {
    "trust_remote_code": r"trust_remote_code(?!=False)",
    "pickle": r"pickle\.loads?\(|Unpickler|allow_pickle|joblib",
    "torch.load without weights_only": r"torch\.load\((?![^\n]*weights_only=True)",
    "yaml that makes objects": r"yaml\.(unsafe_|full_)?load\(",
    "code of a text": r"\b(eval|exec)\(",
}


@pytest.mark.parametrize("what", UNSAFE)
def test_the_package_opens_nothing_that_can_run_code(what):
    found = [
        f"{path}: {line.strip()}"
        for path in SOURCE.rglob("*.py")
        for line in path.read_text().splitlines()
        if re.search(UNSAFE[what], line) and ".eval(" not in line
    ]
    assert found == []


class Bomb:
    """A pickle that leaves a file behind when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def pickled(finished_run, tmp_path):
    """A checkpoint's folder whose weights are pickled."""
    folder = tmp_path / "pickled"
    folder.mkdir()
    model = finished_run / "fold-0" / "finetuned"
    state = load_file(model / "model.safetensors")
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "config.json").write_text((model / "config.json").read_text())
    (folder / "vocab.txt").write_text("[PAD]\n")
    return folder


def test_pickled_weights_are_refused_and_the_line_converts_them(pickled):
    recipe = Recipe(model=ModelConfig(init=str(pickled)))
    with pytest.raises(
        UserError, match=r"pytorch_model\.bin: pickled weights are not read"
    ) as said:
        digest_init(recipe)
    for open_it in (read_config, PairMatcher.from_pretrained):
        with pytest.raises(UserError, match="pickled weights are not read"):
            open_it(pickled)
    (line,) = re.findall("`(python .*?)` makes model.safetensors", str(said.value))
    subprocess.run([sys.executable, *shlex.split(line)[1:]], check=True)
    converted = load_file(pickled / "model.safetensors")
    expected = torch.load(pickled / "pytorch_model.bin", weights_only=True)
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[name], expected[name]) for name in expected)
    digest_init(recipe)


def test_neither_we_nor_the_line_run_what_a_pickle_says(pickled, tmp_path):
    harm = tmp_path / "harm"
    (pickled / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Bomb(harm)}))
    with pytest.raises(UserError) as said:
        digest_init(Recipe(model=ModelConfig(init=str(pickled))))
    (line,) = re.findall("`(python .*?)` makes", str(said.value))
    done = subprocess.run(
        [sys.executable, *shlex.split(line)[1:]], capture_output=True, check=False
    )
    assert done.returncode != 0
    assert not harm.exists()
    pickle.loads((pickled / "pytorch_model.bin").read_bytes())
    assert harm.exists()  # it would have


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_checkpoint_of_ours_runs_no_code_when_it_is_continued_from(
    soak, zygote, sample_folder, tmp_path, tiny_options, name
):
    out, harm = tmp_path / "run", tmp_path / "harm"
    words = soak.kill.run_words(sample_folder, out, tiny_options)
    moment = "open .*pretrained.making/checkpoint-28"
    assert zygote.run(*words, under=str(out), kill_before=moment).status == -9
    checkpoint = out / "fold-0" / ".pretrained.making" / "checkpoint-14"
    (checkpoint / name).write_bytes(pickle.dumps(Bomb(harm)))
    write_json(checkpoint / "seal.json", seal(checkpoint, but="seal.json"))
    said = zygote.run(*words, "--resume").require(2)
    assert f"{checkpoint}: this checkpoint cannot be continued from" in said.err
    assert not harm.exists()
