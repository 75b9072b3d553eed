"""From a YAML (or JSON) file to a :class:`Scenario`; every fault with its line, all faults at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from simslm.errors import ScenarioError, nearest
from simslm.scenario.schema import Scenario


@dataclass(frozen=True)
class Source:
    """A parsed file and where its keys stand.

    Attributes:
        path: the file, None for a mapping given from Python.
        tree: what it says.
        overridden: dotted paths that an override set, so that errors can name the override.
    """

    path: Path | None
    tree: CommentedMap
    overridden: set[tuple[str, ...]] = field(default_factory=set)

    def where(self, keys: tuple[Any, ...]) -> str:
        """``scenario.yaml:6`` for a key that stands in the file, the nearest enclosing key otherwise."""
        for size in range(len(keys), 0, -1):
            if tuple(map(str, keys[:size])) in self.overridden:
                return "--set"
        name = self.path.name if self.path else "scenario"
        line, node = None, self.tree
        for key in keys:
            if not isinstance(node, CommentedMap | CommentedSeq):
                break
            try:
                line = (node.lc.key(key) if isinstance(node, CommentedMap) else node.lc.item(key))[0] + 1
                node = node[key]
            except (KeyError, IndexError, TypeError, AttributeError):
                break
        return f"{name}:{line}" if line else name


def load_scenario(
    source: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | Iterable[str] | None = None
) -> Scenario:
    """Reads and validates a scenario.

    Args:
        source: path of a YAML or JSON file, or the mapping itself.
        overrides: dotted path to value, or ``path=value`` strings whose values are read as YAML.

    Raises:
        ScenarioError: with one line for every fault, each naming file and line, key, and remedy.
    """
    parsed = _mapping_source(source) if isinstance(source, Mapping) else _file_source(Path(source))
    for path, value in _override_items(overrides):
        _override(parsed, path, value)
    try:
        scenario = Scenario.model_validate(_plain(parsed.tree))
    except ValidationError as error:
        problems = _problems(parsed, error)
        raise ScenarioError(problems[0], problems=problems) from None
    return scenario.based_in(parsed.path.parent if parsed.path else Path())


def _yaml() -> YAML:
    yaml = YAML(typ="rt")
    yaml.version = (1, 2)
    return yaml


def _mapping_source(mapping: Mapping[str, Any]) -> Source:
    return Source(None, CommentedMap(_plain(mapping)))


def _file_source(path: Path) -> Source:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ScenarioError("no such file", where=str(path), remedy="see `simslm list scenarios`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"cannot be read as text ({error})", where=str(path)) from None
    try:
        tree = _yaml().load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path.name}:{mark.line + 1}" if mark else path.name
        raise ScenarioError(f"not valid YAML: {error.problem or error.context}", where=where) from None
    except YAMLError as error:
        raise ScenarioError(f"not valid YAML: {error}", where=path.name) from None
    if not isinstance(tree, CommentedMap):
        raise ScenarioError("a scenario is a mapping of keys to values", where=path.name)
    return Source(path, tree)


def _override_items(overrides: Mapping[str, Any] | Iterable[str] | None) -> Iterable[tuple[str, Any]]:
    if overrides is None:
        return
    if isinstance(overrides, Mapping):
        yield from overrides.items()
        return
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise ScenarioError(f"expected path=value, got {text!r}", where="--set")
        try:
            yield path.strip(), _yaml().load(value)
        except YAMLError:
            raise ScenarioError(f"the value of {text!r} is not valid YAML", where="--set") from None


def _override(source: Source, dotted: str, value: Any) -> None:
    """Sets one value, creating the sections on its way; choosing another ``policy`` drops the old one's options."""
    keys = tuple(dotted.split("."))
    node: Any = source.tree
    for i, key in enumerate(keys[:-1]):
        inside = _index(node, key, dotted)
        if isinstance(node, dict) and node.get(inside) is None:
            node[inside] = CommentedMap()
        node = node[inside]
        if not isinstance(node, dict | list):
            raise ScenarioError(
                f"{'.'.join(keys[: i + 1])} is a value, not a section", where=f"--set {dotted}"
            )
    last = _index(node, keys[-1], dotted)
    if last == "policy" and node.get(last) not in (None, value):
        node.clear()
    node[last] = value
    source.overridden.add(keys)


def _index(node: Any, key: str, dotted: str) -> Any:
    if not isinstance(node, list):
        return key
    if not key.isdigit() or int(key) >= len(node):
        raise ScenarioError(f"{key!r} is no position in a list of {len(node)}", where=f"--set {dotted}")
    return int(key)


def _plain(node: Any) -> Any:
    """The tree as plain dicts and lists, keys as strings."""
    if isinstance(node, Mapping):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_plain(value) for value in node]
    if isinstance(node, float) and type(node) is not float:
        return float(node)
    if isinstance(node, int) and not isinstance(node, bool) and type(node) is not int:
        return int(node)
    return node


def _problems(source: Source, error: ValidationError) -> list[str]:
    """One line per faulty key, like
    ``scenario.yaml:6: deployment.engine.max_num_seq: unknown key (did you mean 'max_num_seqs'?)``.

    Where a key may be of several types, pydantic complains once for each; the first speaks for all.
    """
    problems: dict[str, str] = {}
    for fault in error.errors(include_url=False):
        keys = _keys_in(source.tree, fault["loc"])
        dotted = ".".join(map(str, keys)) or "scenario"
        problems.setdefault(dotted, f"{source.where(keys)}: {dotted}: {_message(fault, keys)}")
    return list(problems.values())


def _keys_in(tree: Any, loc: tuple[Any, ...]) -> tuple[Any, ...]:
    """The error's place as keys of the file: without the tags pydantic puts in for members of a union."""
    keys: list[Any] = []
    node = tree
    for i, key in enumerate(loc):
        inside = isinstance(node, Mapping) and key in node
        inside = inside or (isinstance(node, list) and isinstance(key, int) and key < len(node))
        if inside:
            node = node[key]
            keys.append(key)
        elif i == len(loc) - 1 and isinstance(node, Mapping) and key not in node.values():
            keys.append(key)
    return tuple(keys)


def _message(fault: Any, keys: tuple[Any, ...]) -> str:
    kind, context, given = fault["type"], fault.get("ctx", {}), fault.get("input")
    if kind == "extra_forbidden":
        return f"unknown key{nearest(str(keys[-1]), _siblings(fault['loc']))}"
    if kind == "missing":
        return "missing"
    if kind == "union_tag_not_found":
        return f"names no {context['discriminator']}"
    if kind == "union_tag_invalid":
        expected = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
        hint = nearest(str(context["tag"]), expected)
        known = ", ".join(expected)
        return f"unknown {context['discriminator'].strip(chr(39))} {context['tag']!r}{hint}; known: {known}"
    if kind == "value_error":
        return str(context["error"])
    text = fault["msg"][0].lower() + fault["msg"][1:]
    shown = repr(given)
    return f"{text}, got {shown if len(shown) <= 60 else shown[:57] + '...'}"


def _siblings(loc: tuple[Any, ...]) -> list[str]:
    """The keys known where an unknown one was found."""
    models: list[Any] = [Scenario]
    for key in loc[:-1]:
        models = [found for model in models for found in _step(model, key)]
    return [name for model in models for name in model.model_fields]


def _step(model: type[BaseModel], key: Any) -> list[type[BaseModel]]:
    info = model.model_fields.get(str(key))
    return _models(info.annotation) if info else [model]


def _models(annotation: Any) -> list[type[BaseModel]]:
    """All pydantic models inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    found = [model for part in getattr(annotation, "__args__", ()) for model in _models(part)]
    return list(dict.fromkeys(found))
