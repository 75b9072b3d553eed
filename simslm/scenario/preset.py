"""Presets of a workload put in their place: what the user states stays, the preset says the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from simslm.catalog.presets import load_preset
from simslm.errors import ScenarioError, SimslmError
from simslm.plain import is_mapping

TAGS = ("process", "dist")
"""Keys that choose among processes and distributions: two sections of another choice do not mix."""

LENGTHS = ("prompt_tokens", "output_tokens")
"""What is stated of these holds for every client of a preset."""

ENDS = ("num_requests", "duration_s")
"""Keys that end the requests; where one is stated, that of the preset does not apply."""


def put_presets(tree: Any, base: Path, where: Callable[[tuple[Any, ...]], str], *, ends: bool) -> None:
    """Writes what presets say into the workload of a scenario and into those of its classes.

    Args:
        tree: the scenario as it was parsed; changed in place.
        base: what preset files are relative to.
        where: the place of a key, for errors.
        ends: whether presets say when their requests end, where nothing else does by now.

    Raises:
        ScenarioError: a preset does not exist or is none.
    """
    workload = tree.get("workload")
    if not is_mapping(workload):
        return
    _put(workload, base, where, ("workload",), ends)
    classes = workload.get("classes")
    for name, section in classes.items() if is_mapping(classes) else ():
        if is_mapping(section):
            _put(section, base, where, ("workload", "classes", name), ends)


def _put(
    section: Any, base: Path, where: Callable[[tuple[Any, ...]], str], keys: tuple[Any, ...], ends: bool
) -> None:
    name = section.get("preset")
    if not isinstance(name, str) or not name:
        return
    if section.get("replay") is not None:
        raise ScenarioError(
            f"{'.'.join(keys)}: give preset or replay, not both", where=where((*keys, "preset"))
        )
    try:
        preset = load_preset(name, base)
    except SimslmError as error:
        message = f"{'.'.join(keys)}.preset: {error}"
        raise ScenarioError(message, where=where((*keys, "preset"))) from None
    said = deepcopy(preset.workload)
    if not ends or any(section.get(key) is not None for key in ENDS):
        said = {key: value for key, value in said.items() if key not in ENDS}
    for client in said.get("arrivals", {}).get("clients", ()):
        for key in LENGTHS:
            if section.get(key) is not None:
                client.pop(key, None)
    _fill(section, said)


def _fill(section: Any, said: Mapping[str, Any]) -> None:
    """What ``said`` has and the section has not; sections inside alike, where they are of the same choice."""
    for key, value in said.items():
        if key not in section:
            section[key] = value
        elif is_mapping(mine := section[key]) and is_mapping(value) and _same_choice(mine, value):
            _fill(mine, value)


def _same_choice(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two sections choose the same, or the first chooses nothing."""
    return all(one.get(tag, other.get(tag)) == other.get(tag) for tag in TAGS)
