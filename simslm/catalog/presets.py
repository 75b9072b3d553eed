"""Workloads fitted to recorded traffic: the catalogue's, and those that a user has fitted."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simslm.catalog.files import entry_names, read_entry, read_mapping
from simslm.errors import ScenarioError, nearest
from simslm.plain import is_section

KIND = "workloads"
KEYS = ("what", "source", "workload", "fit")


@dataclass(frozen=True)
class Preset:
    """A fitted workload.

    Attributes:
        name: in the catalogue, or of the file.
        what: whose requests it is like, in a line.
        source: of the traffic it was fitted to: file, licence, paper, window, ...
        workload: the keys of a generated workload.
        fit: how well it meets the traffic it was fitted to.
    """

    name: str
    what: str
    workload: dict[str, Any]
    source: dict[str, Any] = field(default_factory=dict[str, Any])
    fit: dict[str, Any] = field(default_factory=dict[str, Any])


def preset_names() -> list[str]:
    """The presets of the catalogue, in alphabetical order."""
    return entry_names(KIND)


def is_file(name: str) -> bool:
    """Whether a preset is named by its file rather than by its name in the catalogue."""
    return "/" in name or name.endswith((".yaml", ".yml", ".json"))


def load_preset(name: str, base_dir: Path = Path()) -> Preset:
    """A preset by its name in the catalogue, or by its file.

    Args:
        name: what ``workload.preset`` says.
        base_dir: what a file is relative to.

    Raises:
        UsageError: there is none of this name.
        ScenarioError: the file cannot be read or is no preset.
    """
    if not is_file(name):
        return _preset(name, read_entry(KIND, name), f"{name}.yaml")
    path = base_dir / name
    return _preset(path.stem, read_mapping(path), str(path))


def holds_preset(content: Any) -> bool:
    """Whether the content of a YAML file is that of a preset rather than of a scenario."""
    return is_section(content) and "workload" in content and set(content) <= set(KEYS)


def _preset(name: str, content: dict[str, Any], where: str) -> Preset:
    unknown = [key for key in content if key not in KEYS]
    if unknown:
        raise ScenarioError(
            f"{unknown[0]}: unknown key{nearest(str(unknown[0]), KEYS)}",
            where=where,
            remedy=f"a preset has the keys {', '.join(KEYS)}; `simslm workload fit` writes one",
        )
    sections = {key: content.get(key, {}) for key in KEYS[1:]}
    for key, section in sections.items():
        if not isinstance(section, dict) or (key == "workload" and not section):
            raise ScenarioError(
                f"{key}: expected a section of keys",
                where=where,
                remedy="`simslm workload fit` writes a preset",
            )
    if "preset" in sections["workload"] or "replay" in sections["workload"]:
        raise ScenarioError(
            "a preset generates its requests: it names no other and replays nothing", where=where
        )
    return Preset(name, str(content.get("what", "")), **sections)
