"""Models by name, by Hugging Face ``config.json``, or inline."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from simslm.catalog.architecture import Architecture
from simslm.catalog.families import architecture_from_mapping, from_config
from simslm.catalog.files import entry_names, read_entry, read_mapping
from simslm.errors import ScenarioError

__all__ = [
    "ModelEntry",
    "architecture_from_mapping",
    "load_model",
    "model_entry",
    "model_file",
    "model_names",
    "named_model",
]

TUNED = frozenset({"instruct", "chat", "it", "hf", "base", "meta"})
"""Words in the name of a repository that say how a model was tuned or packed, or by which owner: its architecture is
the same."""


@dataclass(frozen=True)
class ModelEntry:
    """A model of the catalogue and where its figures come from.

    Attributes:
        architecture: what it is made of.
        source: the configuration file the dimensions were read from.
        published_parameters: the parameter count its authors or the checkpoint state.
        published_parameters_source: where that count is stated.
        published_active_parameters: the count that a token passes, as its authors state it; None for dense models.
        published_active_parameters_source: where that is stated.
    """

    architecture: Architecture
    source: str
    published_parameters: int
    published_parameters_source: str
    published_active_parameters: int | None = None
    published_active_parameters_source: str = ""


def model_names() -> list[str]:
    """The models of the catalogue, in alphabetical order."""
    return entry_names("models")


def model_entry(name: str) -> ModelEntry:
    """A model of the catalogue with its sources.

    Raises:
        UsageError: when the catalogue has no model of that name.
    """
    data = read_entry("models", name)
    stated = {key: value for key, value in data.items() if key != "config"}
    return ModelEntry(from_config(data["config"], name), **stated)


def load_model(name_or_path: str | Path, base_dir: Path | None = None) -> Architecture:
    """The architecture of a catalogue name or of a Hugging Face ``config.json``.

    Args:
        name_or_path: a catalogue name, or what others call such a model (:func:`named_model`); a ``config.json``, or
            the folder that holds one.
        base_dir: what a relative path is relative to; the working directory when None.

    Raises:
        UsageError: when a name is not in the catalogue; the message has the nearest one.
        ScenarioError: when a file is missing, damaged or of an unsupported model.
    """
    path = model_file(name_or_path, base_dir)
    if path is None:
        name = str(name_or_path)
        return model_entry(named_model(name) or name).architecture
    config = read_mapping(path)
    try:
        return from_config(config, _config_name(config, path))
    except ScenarioError as error:
        raise ScenarioError(error.message, where=str(path), remedy=error.remedy) from None


def model_file(name_or_path: str | Path, base_dir: Path | None = None) -> Path | None:
    """The ``config.json`` that :func:`load_model` reads; None where it looks in the catalogue."""
    path = (base_dir or Path()) / name_or_path
    if path.is_dir():
        return path / "config.json"
    return path if str(name_or_path).endswith(".json") else None


def named_model(name: str) -> str | None:
    """The catalogue's name of a model as others call it, None where it has none.

    Known are the catalogue's own names, Hugging Face repositories of any owner, local folders and the cache's
    (``models--Qwen--Qwen2.5-0.5B-Instruct/snapshots/...``). Words of tuning and packing do not count, nor does case.
    Every other word does: quantised weights (``-AWQ``) or another size are another model.
    """
    # The cache of Hugging Face joins owner and name by two hyphens.
    parts = [part.rsplit("--", 1)[-1] for part in str(name).replace("\\", "/").split("/") if part]
    known = _known_words()
    return next((found for part in reversed(parts) if (found := known.get(_words(part)))), None)


@cache
def _known_words() -> dict[tuple[str, ...], str]:
    return {words: entry for entry in model_names() for words in _spellings(entry)}


def _spellings(name: str) -> set[tuple[str, ...]]:
    """The words of a catalogue name and of the repository that it was read from."""
    repository = read_entry("models", name)["source"].partition("/blob/")[0].rsplit("/", 1)[-1]
    return {_words(name), _words(repository)}


def _words(name: str) -> tuple[str, ...]:
    words = re.split(r"[-_ ]+", name.lower())
    return tuple(word for word in words if word and word not in TUNED)


def _config_name(config: Mapping[str, Any], path: Path) -> str:
    """What a configuration calls its model: its own name, else its folder's, else its file's."""
    own = str(config.get("_name_or_path") or "").rstrip("/").rsplit("/", 1)[-1]
    folder = path.resolve().parent.name if path.stem == "config" else ""
    return (own or folder or path.stem).lower()
