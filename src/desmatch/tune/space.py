"""What a search may change: keys of a recipe with their ranges or choices, from a YAML file.

    finetune.learning_rate: {low: 1e-5, high: 5e-4, log: true}
    finetune.num_train_epochs: {low: 1, high: 5}
    finetune.adversarial.kind: [none, fgm]

Ends that are written as whole numbers stay whole: 1 to 5 are five values, 1.0 to 5.0 are many.
"""

from __future__ import annotations

import dataclasses
from functools import cache, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_type_hints

import yaml

from desmatch.errors import UserError, listed, nearest
from desmatch.recipe import Recipe
from desmatch.recipe_file import NOT_YAML, changed_recipe, flat_keys, yaml_errors, yaml_text
from desmatch.tune.ranges import Choices, Span, from_word, is_number, parse_range

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from desmatch.tune.ranges import Value

DEFAULT_SPACE = Path(__file__).parent / "finetune.yaml"

SEARCHED = ("data", "model", "mlm", "pretrain", "pseudo_labels", "finetune")
"""Parts of a recipe that a search may change; others change the rows that trials are judged on, or
nothing that they are judged by."""

Space = dict[str, Span | Choices]


class _Entry(NamedTuple):
    """A key of the file, dotted, with its place."""

    key: str
    line: int
    value: Any


def read_space(path: Path, recipe: Recipe) -> Space:
    """Read a space, and ask the recipe's own checks about every end and choice in it.

    Args:
        path: YAML, keys dotted or nested as in a recipe.
        recipe: What is searched; values of a trial take the place of its own.

    Raises:
        UserError: Not YAML, an unknown key, or a range that is empty, of the wrong type or holds
            what no recipe does; all of them at once, each by file and line.
    """
    entries = list(_entries(_root(path), str(path)))
    if not entries:
        raise UserError(f"{path}:1: no key; name one as in finetune.learning_rate: "
                        "{low: 1e-5, high: 1e-3, log: true}")  # fmt: skip
    hints = _value_hints(Recipe)
    space: Space = {}
    problems = []
    for entry in entries:
        try:
            if entry.key in space:
                raise ValueError("is given twice; leave one of them out")
            _require_known(entry.key, hints)
            space[entry.key] = _checked(entry, recipe, hints[entry.key])
        except ValueError as error:
            problems.append(f"{path}:{entry.line}: {entry.key}: {error}")
    if problems:
        raise UserError(listed(problems))
    return space


def space_to_json(space: Space) -> dict[str, Any]:
    """Return a space as its file could have it."""
    return {
        key: list(each.values) if isinstance(each, Choices) else dataclasses.asdict(each)
        for key, each in space.items()
    }


def own_values(recipe: Recipe, space: Space) -> dict[str, Value] | None:
    """Return a recipe's own values of the searched keys; none where one lies outside the space."""
    found = {}
    for key, each in space.items():
        value = value_at(recipe, key)
        if not each.holds(value):
            return None
        found[key] = int(value) if isinstance(each, Span) and each.is_whole else value
    return found


def value_at(recipe: Recipe, key: str) -> Any:  # noqa: ANN401 - any value of a recipe
    """Return a recipe's value by its dotted key."""
    return reduce(getattr, key.split("."), recipe)


def recipe_of(recipe: Recipe, values: Mapping[str, Value], source: str) -> Recipe:
    """Return a recipe with values from its space.

    Args:
        recipe: Left as it is.
        values: By dotted keys, each of the key's type.
        source: In whose name values that do not go together are refused.

    Raises:
        UserError: The recipe's own checks refuse them.
    """
    kinds = {key: get_args(hint) or (hint,) for key, hint in _value_hints(Recipe).items()}
    typed = {key: float(value) if float in kinds[key] and is_number(value) else value  # type: ignore[arg-type]
             for key, value in values.items()}  # fmt: skip
    try:
        found: Recipe = _replaced(recipe, typed)
    except ValueError as error:
        raise UserError(f"{source}: {error}") from None
    return found


def _replaced(config: Any, values: Mapping[str, Value]) -> Any:  # noqa: ANN401 - a part of a recipe
    """Return a part of a recipe with all the values at once, for they are checked together."""
    changes: dict[str, Any] = {}
    within: dict[str, dict[str, Value]] = {}
    for key, value in values.items():
        name, _, rest = key.partition(".")
        if rest:
            within.setdefault(name, {})[rest] = value
        else:
            changes[name] = value
    changes |= {name: _replaced(getattr(config, name), each) for name, each in within.items()}
    return dataclasses.replace(config, **changes)


def _require_known(key: str, hints: Mapping[str, Any]) -> None:
    part = key.partition(".")[0]
    if key not in flat_keys(Recipe):
        raise ValueError(f"no such key of a recipe{nearest(key, hints)}")
    if part not in SEARCHED:
        raise ValueError(f"cannot be searched, as trials are compared on the same rows by the same "
                         f"AUC; choose keys of {', '.join(SEARCHED)}")  # fmt: skip
    if key not in hints:
        within = next(each for each in hints if each.startswith(f"{key}."))
        raise ValueError(f"expected one value of it, such as {within}")


def _checked(entry: _Entry, recipe: Recipe, hint: Any) -> Span | Choices:  # noqa: ANN401 - a type
    """Return what stands behind a key, choices as the recipe holds them.

    Raises:
        ValueError: It is of the wrong type or the recipe refuses it.
    """
    found = parse_range(entry.value)
    kinds = get_args(hint) or (hint,)
    if isinstance(found, Span):
        if not {int, float} & set(kinds):
            raise ValueError(f"is no number; give choices, such as [{', '.join(map(str, kinds))}]")
        if float not in kinds and not found.is_whole:
            raise ValueError("expected whole numbers as low, high and step")
    elif float in kinds:
        found = Choices(tuple(from_word(each) for each in found.values))  # type: ignore[misc]
    if None in found.ends and type(None) not in kinds:
        raise ValueError("null is no value of it")
    held = [_held(recipe, entry.key, value) for value in found.ends]
    if isinstance(found, Span):
        return found
    if len({repr(value) for value in held}) < len(held):
        raise ValueError(f"a choice is given twice: {held}")
    return Choices(tuple(held))


def _held(recipe: Recipe, key: str, value: Value) -> Value:
    try:
        held: Value = value_at(changed_recipe(recipe, {key: value}, "refused"), key)
    except UserError as error:
        raise ValueError(str(error).removeprefix("refused: ")) from None
    return held


@cache
def _value_hints(config: type, prefix: str = "") -> Mapping[str, Any]:
    """Return the type of every value of a dataclass of dataclasses, by its dotted name."""
    found: dict[str, Any] = {}
    hints = get_type_hints(config)
    for each in dataclasses.fields(config):
        name, hint = f"{prefix}{each.name}", hints[each.name]
        is_part = isinstance(hint, type) and dataclasses.is_dataclass(hint)
        found.update(_value_hints(hint, f"{name}.") if is_part else {name: hint})
    return found


def _root(path: Path) -> yaml.MappingNode:
    try:
        with yaml_errors(path):
            node = yaml.SafeLoader(yaml_text(path)).get_single_node()
    except FileNotFoundError:
        raise UserError(f"--space {path}: no such file") from None
    if node is None:
        return yaml.MappingNode("tag:yaml.org,2002:map", [])
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"{path}:1: expected keys and ranges, such as finetune.learning_rate: "
                        "{low: 1e-5, high: 1e-3, log: true}")  # fmt: skip
    return node


def _entries(node: yaml.MappingNode, path: str, prefix: str = "") -> Iterator[_Entry]:
    """Yield the keys with a range or choices; a part's own keys are looked for within it."""
    parts = set(flat_keys(Recipe)) - set(_value_hints(Recipe))
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise UserError(f"{path}:{line}: expected the key of a recipe")
        key = f"{prefix}{key_node.value}"
        if key in parts and isinstance(value_node, yaml.MappingNode) and value_node.value:
            yield from _entries(value_node, path, f"{key}.")
        else:
            yield _Entry(key, line, _plain(value_node, path, line))


def _plain(node: yaml.Node, path: str, line: int) -> Any:  # noqa: ANN401 - what YAML holds
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node, deep=True)  # type: ignore[no-untyped-call]
    except NOT_YAML as error:
        raise UserError(f"{path}:{line}: not valid YAML: {error}") from None
