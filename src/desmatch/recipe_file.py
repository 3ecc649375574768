"""Recipes as YAML files of differences from the defaults, and as words of the command line."""

from __future__ import annotations

import dataclasses
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, reduce
from operator import getitem
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from desmatch.disk import refuse_pipe
from desmatch.errors import UserError, listed, nearest
from desmatch.recipe import Recipe

RECIPES = Path(__file__).parent / "recipes"
"""The recipes that are part of the package, one YAML file each."""

OF_ALL_MEMBERS = ("validation", "predict", "ensemble", "members")
"""Parts of a recipe that a member cannot change."""


def recipe_names() -> list[str]:
    """Return the names of the recipes in the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """Return the file of a recipe, given by its name in the package or by a path.

    Raises:
        UserError: There is neither; the message names the nearest recipe.
    """
    inside = RECIPES / f"{name}.yaml"
    if inside.is_file():
        return inside
    if name.endswith((".yaml", ".yml")):
        if Path(name).is_file():
            return Path(name)
        raise UserError(f"--recipe {name}: no such file")
    names = recipe_names()
    raise UserError(
        f"--recipe {name}: no recipe of that name{nearest(name, names)}"
        f"\nRecipes: {', '.join(names)}; or give a file that ends in .yaml"
    )


def flat_keys(config: type, prefix: str = "") -> Iterator[str]:
    """Yield the dotted name of every value of a dataclass of dataclasses."""
    hints = get_type_hints(config)
    for each in dataclasses.fields(config):
        name = f"{prefix}{each.name}"
        yield name
        if dataclasses.is_dataclass(hints[each.name]):
            yield from flat_keys(hints[each.name], f"{name}.")


def unknown_keys(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of nested `values` that no recipe has."""
    known = set(flat_keys(Recipe))
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name not in known:
            yield name
        elif isinstance(value, Mapping) and name != "members":
            yield from unknown_keys(value, f"{name}.")


NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)
"""What PyYAML raises; thousands of digits or of brackets are no error of its own."""

MAX_YAML_BYTES = 1 << 20
"""PyYAML reads some hundred thousand a second."""


def yaml_text(path: Path) -> str:
    """Return the text of a file of YAML that a person wrote.

    Raises:
        UserError: It is a pipe, or larger than any person writes.
        OSError: It cannot be read.
        UnicodeDecodeError: It is not UTF-8.
    """
    refuse_pipe(path)
    if (size := path.stat().st_size) > MAX_YAML_BYTES:
        raise UserError(f"{path}: expected YAML of {MAX_YAML_BYTES} bytes at most, got {size}")
    return path.read_text(encoding="utf-8")


@contextmanager
def yaml_errors(path: Path) -> Iterator[None]:
    """Turn what PyYAML raises on a bad file into a `UserError` that names it."""
    try:
        yield
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    except NOT_YAML as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None


def read_recipe_values(path: Path) -> dict[str, Any]:
    """Read a recipe's YAML file of differences from the defaults.

    Raises:
        UserError: Not YAML, not a mapping, or a key that no recipe has, with the nearest one.
    """
    with yaml_errors(path):
        values = yaml.safe_load(yaml_text(path)) or {}
    if not isinstance(values, dict):
        raise UserError(f"{path}:1: expected keys and values, got {type(values).__name__}")
    known = list(flat_keys(Recipe))
    problems = [f"{path}: unknown key {key!r}{nearest(key, known)}" for key in unknown_keys(values)]
    members = values.get("members")
    problems += [
        f"{path}: members.{name}: expected keys and values, got {differences!r}; "
        "write {} where nothing differs"
        for name, differences in (members.items() if isinstance(members, dict) else ())
        if not isinstance(differences, dict)
    ]
    if problems:
        raise UserError(listed(problems))
    return values


def recipe_to_yaml(recipe: Recipe) -> str:
    """Return all values of a recipe as YAML."""
    return str(yaml.safe_dump(dataclasses.asdict(recipe), sort_keys=False, allow_unicode=True))


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return a recipe: the file's values over the defaults, `overrides` over both.

    Args:
        path: YAML file of differences from the defaults.
        overrides: Command-line words such as `--pretrain.learning_rate 1e-3`.

    Raises:
        UserError: An unknown key or a value that does not fit, of a member too; the message names
            the key and, where a key is unknown, the nearest one.
    """
    _refuse_unknown_options(overrides)
    read_recipe_values(path)
    parser = recipe_parser([path])
    recipe = _build(parser, lambda: parser.parse_args(list(overrides)), f"recipe {path.name}")
    for name in recipe.members:
        member_recipe(recipe, name)
    return recipe


def member_recipe(recipe: Recipe, name: str) -> Recipe:
    """Return the recipe of a member: that of all with its differences, the same folds, no members.

    Raises:
        UserError: A key that no recipe has or that is for all members, or a value that does not
            fit.
    """
    differences = dict(_flat_values(recipe.members[name]))
    problems = [_member_problem(key, name) for key in differences]
    if any(problems):
        raise UserError(listed(problem for problem in problems if problem))
    values = dataclasses.asdict(recipe)
    for part in ("predict", "ensemble", "members"):  # the ensemble's own work, done once
        del values[part]
    values["validation"]["split_seed"] = recipe.validation.seed_of_folds(recipe.seed)
    return _changed(values, differences, f"members.{name}")


def changed_recipe(recipe: Recipe, differences: Mapping[str, Any], source: str) -> Recipe:
    """Return a recipe with other values.

    Args:
        recipe: Left as it is.
        differences: Dotted keys that a recipe has, and their values.
        source: In whose name a value that does not fit is refused.

    Raises:
        UserError: A value does not fit.
    """
    return _changed(dataclasses.asdict(recipe), differences, source)


def recipe_to_differences(recipe: Recipe) -> dict[str, Any]:
    """Return the values in which a recipe differs from the defaults, nested as in its file."""
    return _differences(dataclasses.asdict(recipe), dataclasses.asdict(Recipe()))


def _differences(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for key, value in values.items():
        if value == defaults.get(key):
            continue
        is_part = isinstance(value, dict) and bool(defaults.get(key))
        found[key] = _differences(value, defaults[key]) if is_part else value
    return found


def _changed(values: dict[str, Any], differences: Mapping[str, Any], source: str) -> Recipe:
    """Set values in a nested dict of a recipe's, and return the recipe."""
    for key, value in differences.items():
        *parts, last = key.split(".")
        reduce(getitem, parts, values)[last] = value
    parser = _bare_parser()
    return _build(parser, lambda: parser.parse_object(values), source)


def _member_problem(key: str, name: str) -> str:
    """Return what is wrong with a key of a member's differences, or nothing."""
    known = [each for each in flat_keys(Recipe) if each.partition(".")[0] not in OF_ALL_MEMBERS]
    within = [each for each in known if each.startswith(f"{key}.")]
    if key.partition(".")[0] in OF_ALL_MEMBERS:
        return f"members.{name}.{key}: is the same for all members; set it outside of members"
    if key not in known:
        return f"members.{name}.{key}: no such key{nearest(key, known)}"
    if within:
        return f"members.{name}.{key}: expected one value of it, such as {within[0]}"
    return ""


def _flat_values(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from _flat_values(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _build(parser: Any, parse: Callable[[], Any], source: str) -> Recipe:  # noqa: ANN401
    """Return the recipe of what a parser of recipes has parsed.

    Raises:
        UserError: In the name of the source.
    """
    try:
        values = parser.instantiate(parse())
        return Recipe(**{each.name: values[each.name] for each in dataclasses.fields(Recipe)})
    except (ArgumentError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{source}: {reason}") from None


def recipe_parser(files: Sequence[Path] = ()) -> Any:  # noqa: ANN401 - of jsonargparse
    """Return a parser with one option for every value of a recipe, defaults read from files."""
    from jsonargparse import ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        default_config_files=[str(path) for path in files],
        exit_on_error=False,
        add_help=False,
        usage="",
    )
    parser.add_class_arguments(Recipe, nested_key=None, fail_untyped=True)
    return parser


@cache
def _bare_parser() -> Any:  # noqa: ANN401 - of jsonargparse
    """Return a parser without files, made once: making it takes longer than a parse."""
    return recipe_parser()


def _refuse_unknown_options(overrides: Sequence[str]) -> None:
    known = list(flat_keys(Recipe))
    problems = []
    for word in overrides:
        name = word.split("=", 1)[0]
        if name.startswith("--") and name[2:] not in known:
            problems.append(f"{name}: no such option{nearest(name[2:], known)}")
    if overrides and not overrides[0].startswith("--"):
        problems.insert(0, f"{overrides[0]}: not expected here")
    if problems:
        raise UserError(listed(problems))
