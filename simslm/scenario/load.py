"""From a YAML (or JSON) file to a :class:`Scenario`; every fault with its line, all faults at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from simslm.errors import ScenarioError, nearest
from simslm.plain import is_list, is_mapping, is_row, is_section
from simslm.scenario.mechanisms import clashes
from simslm.scenario.preset import put_presets
from simslm.scenario.schema import Scenario

MOST_BYTES = 1 << 24
"""Size of a scenario file from which it is taken for something else."""

MOST_NODES = 1_000_000
"""Values in a scenario, aliases written out, from which it is taken for a bomb."""


@dataclass(frozen=True)
class Source:
    """A parsed file and where its keys stand.

    Attributes:
        path: the file, None for a mapping given from Python.
        tree: what it says, a mapping that knows the lines of its keys; ruamel.yaml types it in parts only.
        base: folder its relative paths start in.
        overridden: keys that an override set or created, so that errors can name the override.
    """

    path: Path | None
    tree: Any
    base: Path
    overridden: set[tuple[str, ...]] = field(default_factory=set[tuple[str, ...]])

    def where(self, keys: tuple[Any, ...]) -> str:
        """``scenario.yaml:6`` for a key that stands in the file, the nearest enclosing key otherwise."""
        for size in range(len(keys), 0, -1):
            if tuple(map(str, keys[:size])) in self.overridden:
                return "--set"
        name = self.path.name if self.path else "scenario"
        line, node = None, self.tree
        for key in keys:
            if not (in_map := _is_map(node)) and not _is_row(node):
                break
            try:
                line = _line(node, key, in_map)
                node = node[key]
            except (KeyError, IndexError, TypeError, AttributeError):
                break
        return f"{name}:{line}" if line else name


def load_scenario(
    source: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | Iterable[str] | None = None
) -> Scenario:
    """Reads and validates a scenario.

    Args:
        source: path of a YAML or JSON file, or the mapping itself; the ``manifest.json`` of a run is the scenario
            that was run, and its relative paths start where they did then.
        overrides: dotted path to value, or ``path=value`` strings whose values are read as YAML.

    Raises:
        ScenarioError: with one line for every fault, each naming file and line, key, and remedy.
    """
    parsed = _mapping_source(source) if isinstance(source, Mapping) else _file_source(Path(source))
    parsed = _manifests_scenario(parsed)
    settings = list(_override_items(overrides))
    for early in (True, False):  # presets first: what they say can be overridden
        for path, value in settings:
            if path.endswith(".preset") == early:
                _override(parsed, path, value)
        put_presets(parsed.tree, parsed.base, parsed.where, ends=not early)
    try:
        # Strict: pydantic would otherwise take "64" for 64 and 1 for true, and a slip of the pen would run.
        scenario = Scenario.model_validate(_content(parsed), strict=True)
    except ValidationError as error:
        problems = _problems(parsed, error)
        raise ScenarioError(problems[0], problems=problems) from None
    problems = [
        f"{parsed.where(keys)}: {'.'.join(map(str, keys))}: {problem}" for keys, problem in clashes(scenario)
    ]
    if problems:
        raise ScenarioError(problems[0], problems=problems)
    return scenario.read_from(parsed.base, parsed.where)


def _yaml() -> Any:
    """What reads YAML and keeps the lines; ruamel.yaml types it in parts only."""
    yaml = YAML(typ="rt")
    # In YAML 1.1 ``no`` is false and 010 is eight.
    yaml.version = (1, 2)
    return yaml


def _is_map(value: Any) -> bool:
    return isinstance(value, CommentedMap)


def _is_row(value: Any) -> bool:
    return isinstance(value, CommentedSeq)


def _line(node: Any, key: Any, in_map: bool) -> int:
    """The line of a key of a mapping, or of a position in a list, from 1."""
    return (node.lc.key(key) if in_map else node.lc.item(key))[0] + 1


def _mapping_source(mapping: Mapping[str, Any]) -> Source:
    return Source(None, CommentedMap(_plain(mapping)), Path())


def _file_source(path: Path) -> Source:
    try:
        tree = _yaml().load(_text(path))
    except MarkedYAMLError as error:
        raise _not_yaml(error, path.name) from None
    except (YAMLError, ValueError) as error:
        raise ScenarioError(f"not valid YAML: {error}", where=path.name) from None
    except RecursionError:
        raise ScenarioError("nested too deeply", where=path.name) from None
    if not _is_map(tree):
        raise ScenarioError("a scenario is a mapping of keys to values", where=path.name)
    return Source(path, tree, path.parent)


def _not_yaml(error: Any, name: str) -> ScenarioError:
    """What ruamel.yaml says of a place in a file."""
    mark = error.problem_mark or error.context_mark
    where = f"{name}:{mark.line + 1}" if mark else name
    return ScenarioError(f"not valid YAML: {error.problem or error.context}", where=where)


def _manifests_scenario(source: Source) -> Source:
    """The scenario in the manifest of a run; of anything else, itself."""
    scenario, base = source.tree.get("scenario"), source.tree.get("base_dir")
    if not is_section(scenario) or not isinstance(base, str):
        return source
    return Source(source.path, CommentedMap(scenario) if source.path is None else scenario, Path(base))


def _text(path: Path) -> str:
    """The text of a scenario file; in JSON, where a tab may indent, tabs become spaces."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise ScenarioError("no such file", where=str(path), remedy="see `simslm list scenarios`") from None
    except IsADirectoryError:
        raise ScenarioError("is a directory, not a scenario file", where=str(path)) from None
    except UnicodeDecodeError:
        raise ScenarioError(
            "cannot be read as text: a scenario is YAML or JSON in UTF-8", where=str(path)
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ScenarioError(f"cannot be read ({reason})", where=str(path)) from None
    if len(text) > MOST_BYTES:
        raise ScenarioError("is too large for a scenario", where=str(path))
    return text.replace("\t", " ") if text.lstrip().startswith("{") else text


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
        except (YAMLError, ValueError, RecursionError):
            raise ScenarioError(f"the value of {text!r} is not valid YAML", where="--set") from None


def _override(source: Source, dotted: str, value: Any) -> None:
    """Sets one value, creating the sections on its way; what cannot stand beside it makes room."""
    keys = _keys_of(dotted)
    node: Any = source.tree
    for i, key in enumerate(keys[:-1]):
        inside = _index(node, key, dotted)
        if is_section(node) and node.get(inside) is None:
            _make_room(node, keys[: i + 1])
            node[inside] = CommentedMap()
            source.overridden.add(keys[: i + 1])
        node = node[inside]
        if not is_section(node) and not is_list(node):
            raise ScenarioError(
                f"{'.'.join(keys[: i + 1])} is a value, not a section", where=f"--set {dotted}"
            )
    if is_section(node) and value is not None:
        _make_room(node, keys, value)
    node[_index(node, keys[-1], dotted)] = value
    source.overridden.add(keys)


def _keys_of(dotted: str) -> tuple[str, ...]:
    """The keys on a path, a position in a list as ``.1`` or ``[1]``. Keys of ``search.space`` and
    ``search.objectives`` are paths themselves: what follows is one key."""
    keys = tuple(re.sub(r"\[(\d+)\]", r".\1", dotted).split("."))
    if not all(keys):
        raise ScenarioError("expected keys with a dot between each two", where=f"--set {dotted}")
    for i in range(1, len(keys) - 1):
        fields = [model.model_fields.get(keys[i]) for model in _models_at(keys[:i])]
        if any(field is not None and get_origin(field.annotation) is dict for field in fields):
            return (*keys[: i + 1], ".".join(keys[i + 1 :]))
    return keys


def _make_room(section: dict[str, Any], keys: tuple[str, ...], value: Any = None) -> None:
    """Drops from a section what cannot stand beside the last of ``keys``: the alternatives to it, and where
    ``value`` names another policy, process or distribution, the options that this one does not have."""
    key, models = keys[-1], _models_at(keys[:-1])
    foreign = {other for model in models for other in getattr(model, "displaces", {}).get(key, ())}
    for model in models if len(models) > 1 else ():
        tag = model.model_fields.get(key)
        if tag is not None and value in get_args(tag.annotation):
            foreign = set(section) - set(model.model_fields)
    for other in foreign & set(section):
        del section[other]


def _index(node: Any, key: str, dotted: str) -> Any:
    if not is_list(node):
        return key
    if not key.isdigit() or int(key) >= len(node):
        raise ScenarioError(f"{key!r} is no position in a list of {len(node)}", where=f"--set {dotted}")
    return int(key)


def _content(source: Source) -> Any:
    """What a source says, as plain values, its lists as tuples: strict validation takes nothing else for them.

    Raises:
        ScenarioError: it is beyond all measure once its aliases are written out.
    """
    # Nested aliases of ten lines can stand for 10¹⁰ values; they are counted before they are written out.
    if _size(source.tree) > MOST_NODES:
        raise ScenarioError("has too many values, with its aliases written out", where=source.where(()))
    return _plain(source.tree, tuple)


def _size(node: Any, known: dict[int, int] | None = None) -> int:
    """Values in a tree with every alias written out, without writing them out."""
    known = {} if known is None else known
    if not is_mapping(node) and not is_row(node):
        return 1
    if id(node) not in known:
        values = node.values() if is_mapping(node) else node
        known[id(node)] = 1 + sum(_size(value, known) for value in values)
    return known[id(node)]


def _plain(node: Any, sequence: type[list[Any]] | type[tuple[Any, ...]] = list) -> Any:
    """The tree as plain dicts, sequences and Python's own numbers, keys as strings."""
    if is_mapping(node):
        return {str(key): _plain(value, sequence) for key, value in node.items()}
    if is_row(node):
        return sequence(_plain(value, sequence) for value in node)
    # Before the numbers: a bool is an Integral in Python.
    if isinstance(node, bool):
        return node
    if isinstance(node, Integral):
        return int(node)
    return float(node) if isinstance(node, Real) else node


def _problems(source: Source, error: ValidationError) -> list[str]:
    """One line per faulty key, like
    ``scenario.yaml:6: deployment.engine.max_num_seq: unknown key (did you mean 'max_num_seqs'?)``.

    Where a key may be of several types, pydantic complains once for each; the first speaks for all.
    """
    problems: dict[str, str] = {}
    for fault in error.errors(include_url=False):
        keys = _keys_in(source.tree, fault["loc"])
        if fault["type"] == "union_tag_invalid":
            keys += (_discriminator(fault),)
        dotted = ".".join(map(str, keys)) or "scenario"
        # ``setdefault``: of several complaints about one key the first is kept.
        problems.setdefault(dotted, f"{source.where(keys)}: {dotted}: {_message(fault, keys)}")
    return list(problems.values())


def _keys_in(tree: Any, loc: tuple[Any, ...]) -> tuple[Any, ...]:
    """The error's place as keys of the file: without the tags pydantic puts in for members of a union."""
    keys: list[Any] = []
    node = tree
    for i, key in enumerate(loc):
        if _holds(node, key):
            node = node[key]
            keys.append(key)
        elif i == len(loc) - 1 and is_mapping(node) and key not in node.values():
            keys.append(key)
    return tuple(keys)


def _holds(node: Any, key: Any) -> bool:
    """Whether a section has a key, or a list a position."""
    return (is_mapping(node) and key in node) or (is_list(node) and isinstance(key, int) and key < len(node))


def _message(fault: Any, keys: tuple[Any, ...]) -> str:
    kind, context, given = fault["type"], fault.get("ctx", {}), fault.get("input")
    if kind == "extra_forbidden":
        return f"unknown key{nearest(str(keys[-1]), _siblings(fault['loc']))}"
    if kind == "missing":
        return "missing"
    if kind == "union_tag_not_found":
        return f"names no {_discriminator(fault)}"
    if kind == "union_tag_invalid":
        expected = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
        hint = nearest(str(context["tag"]), expected)
        known = ", ".join(expected)
        return f"unknown {_discriminator(fault)} {context['tag']!r}{hint}; known: {known}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "too_short":
        return f"expected at least {context['min_length']} in the list, got {context['actual_length']}"
    text = EXPECTED.get(kind) or fault["msg"][0].lower() + fault["msg"][1:]
    shown = str(given).lower() if isinstance(given, bool) else repr(given)
    return f"{text}, got {shown if len(shown) <= 60 else shown[:57] + '...'}"


EXPECTED = {
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "expected a section of keys"),
    **dict.fromkeys(("list_type", "tuple_type"), "expected a list"),
}
"""What pydantic says in terms of Python, in terms of YAML."""


def _discriminator(fault: Any) -> str:
    """The key that chooses among the members of a union."""
    return fault["ctx"]["discriminator"].strip("'")


def _siblings(loc: tuple[Any, ...]) -> list[str]:
    """The keys known where an unknown one was found."""
    return [name for model in _models_at(loc[:-1]) for name in model.model_fields]


def _models_at(loc: tuple[Any, ...]) -> list[type[BaseModel]]:
    """What may stand at a place in a scenario; several where there is a choice that ``loc`` does not name."""
    models: list[type[BaseModel]] = [Scenario]
    named = False
    for key in loc:
        if named:
            named = False
            continue
        named = any(_is_named(model.model_fields.get(str(key))) for model in models)
        models = [found for model in models for found in _step(model, key)]
    return models


def _is_named(field: Any) -> bool:
    """Whether a field holds models by names that the user gives them: the key after it is such a name."""
    parts = () if field is None else (field.annotation, *get_args(field.annotation))
    return any(get_origin(part) is dict and _models(part) for part in parts)


def _step(model: type[BaseModel], key: Any) -> list[type[BaseModel]]:
    """From a model into its field, into a position of its list, or to itself if ``key`` is its tag in a union."""
    info = model.model_fields.get(str(key))
    if info:
        return _models(info.annotation)
    tagged = any(key in get_args(field.annotation) for field in model.model_fields.values())
    return [model] if isinstance(key, int) or str(key).isdigit() or tagged else []


def _models(annotation: Any) -> list[type[BaseModel]]:
    """All pydantic models inside an annotation."""
    if isinstance(annotation, type) and issubclass(cls := cast("type[Any]", annotation), BaseModel):
        return [cls]
    found = [model for part in getattr(annotation, "__args__", ()) for model in _models(part)]
    return list(dict.fromkeys(found))
