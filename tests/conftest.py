from __future__ import annotations

import copy
import os
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import numpy as np
import pytest
from hypothesis import settings

from desmatch.data.sample import write_sample
from desmatch.data.vocabulary import EncodedPairs

settings.register_profile("any-machine", deadline=None, derandomize=True)  # one verdict for all
settings.register_profile("searching", deadline=None)  # --hypothesis-profile searching
settings.load_profile("any-machine")


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory):
    """A few hundred rows of the toy language."""
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, seed=1, num_train=300, num_test=60, num_unlabeled=100)
    return folder


TINY_OPTIONS = [
    "--data.min_count=2",
    "--validation.num_folds=3",
    "--validation.num_bootstraps=100",
    "--model.hidden_size=16",
    "--model.num_hidden_layers=2",
    "--model.num_attention_heads=2",
    "--model.intermediate_size=32",
    "--pretrain.num_train_epochs=1",
    "--pretrain.batch_size=16",
    "--pretrain.learning_rate=0.003",
    "--pretrain.num_evaluations=2",
    "--finetune.num_train_epochs=2",
    "--finetune.batch_size=16",
    "--finetune.learning_rate=0.003",
    "--finetune.num_evaluations=3",
    "--machine.num_threads=1",
]


@pytest.fixture(scope="session")
def tiny_options():
    """Command-line options that make any recipe a matter of seconds."""
    return list(TINY_OPTIONS)


@pytest.fixture(scope="session")
def tiny_recipe():
    from desmatch.recipe_file import load_recipe, recipe_path

    return load_recipe(recipe_path("demo"), TINY_OPTIONS)


@pytest.fixture(scope="session")
def _tiny_model():
    from desmatch.model.checkpoints import build_model
    from desmatch.recipe import ModelConfig
    from desmatch.runs import seed_everything

    seed_everything(0)
    config = ModelConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    return build_model(config, vocab_size=40, max_length=32).eval()


@pytest.fixture
def tiny_model(_tiny_model):
    """2 layers, D 16, V 40, of fixed random weights, in evaluation mode."""
    return copy.deepcopy(_tiny_model)


@pytest.fixture(scope="session")
def finished_run(sample_folder, tmp_path_factory, tiny_options):
    """The folder of a tiny run of the whole job, through the command line."""
    from desmatch.cli import main

    out = tmp_path_factory.mktemp("runs") / "tiny"
    status = main(
        ["run", "--recipe", "demo", "--data", str(sample_folder), "--out", str(out), *tiny_options]
    )
    assert status == 0
    return out


def encode_lists(pairs):
    """EncodedPairs from lists of token ids: [(a, b), ...]."""
    texts = [text for pair in pairs for text in pair]
    offsets = np.cumsum([0, *(len(text) for text in texts)])
    return EncodedPairs(np.array([i for text in texts for i in text], np.int32), offsets)


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium, one for all tests: two at once would share an event loop, which fails."""
    is_required = os.environ.get("DESMATCH_REQUIRE_CHROMIUM") == "1"
    if not is_required:
        pytest.importorskip("playwright.sync_api")
    from playwright.sync_api import sync_playwright

    found = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    path = next(filter(None, found), None)
    if path is None and is_required:
        pytest.fail("DESMATCH_REQUIRE_CHROMIUM=1, and no chromium is on the PATH")
    if path is None:
        pytest.skip("no chromium on the PATH")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()
