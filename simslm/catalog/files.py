"""The catalogue's data files: one short YAML file per entry, named after it; only the named file is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from simslm.errors import ScenarioError, UsageError, nearest
from simslm.plain import is_section

CATALOGUE = Path(__file__).parent


def entry_names(kind: str) -> list[str]:
    """The names in the catalogue of one kind (``models`` or ``devices``), in alphabetical order."""
    return sorted(path.stem for path in (CATALOGUE / kind).glob("*.yaml"))


def read_entry(kind: str, name: str) -> dict[str, Any]:
    """The data file of one catalogue entry.

    Raises:
        UsageError: when there is no such entry; the message names the nearest one.
    """
    names = entry_names(kind)
    if name not in names:
        one = kind.removesuffix("s")
        hint = nearest(name.lower(), names)
        raise UsageError(
            f"no {one} {name!r} in the catalogue{hint}",
            remedy=f"`simslm list {kind}` names them",
        )
    path = CATALOGUE / kind / f"{name}.yaml"
    return read_mapping(path)


def read_mapping(path: Path) -> dict[str, Any]:
    """A YAML (or JSON) file whose top level is a mapping.

    Raises:
        ScenarioError: when the file cannot be read, is not YAML, or holds something else than a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ScenarioError(f"cannot be read ({reason})", where=str(path), remedy="check the path") from None
    content = _parse_json(text, path) if path.suffix == ".json" else _parse_yaml(text, path)
    if not is_section(content):
        raise ScenarioError("expected a mapping of names to values at the top level", where=str(path))
    return content


def parse_mapping(text: str, where: str) -> dict[str, Any]:
    """A mapping written as YAML in one line.

    Raises:
        ScenarioError: it is not YAML, or something else than a mapping.
    """
    content = _parse_yaml(text, Path(where))
    if not is_section(content):
        raise ScenarioError("expected a mapping of names to values", where=where)
    return content


def _reader() -> Any:
    """What reads YAML; its ``load`` is annotated in parts only, so it counts as untyped."""
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True)


def _parse_json(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}"
        raise ScenarioError(f"not valid JSON: {error.msg}", where=where, remedy="correct the file") from None


def _parse_yaml(text: str, path: Path) -> Any:
    from ruamel.yaml import YAMLError

    try:
        return _reader().load(text)
    except YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        message = f"not valid YAML: {problem or 'cannot be parsed'}"
        raise ScenarioError(message, where=where, remedy="correct the file") from None
