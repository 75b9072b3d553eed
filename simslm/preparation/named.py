"""What a scenario names: its device, its models, and the files it reads beside traces."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

from simslm.catalog.architecture import Architecture
from simslm.catalog.devices import Device, device_file, load_device
from simslm.catalog.models import architecture_from_mapping, load_model, model_file
from simslm.preparation.found import Found
from simslm.preparation.place import placed
from simslm.scenario.schema import Scenario


def device_of(scenario: Scenario, found: Found) -> Device:
    """The device that a scenario names or describes.

    Raises:
        SimslmError: it is not in the catalogue, or its description cannot be read.
    """
    named = scenario.device
    with placed(scenario, "device"):
        return found.get(
            "device",
            (key_of(named), scenario.base_dir),
            lambda: load_device(named, scenario.base_dir),
        )


def architecture_of(model: str | dict[str, Any], scenario: Scenario, found: Found) -> Architecture:
    """A model that a scenario names or describes.

    Raises:
        SimslmError: it is not in the catalogue, or its description cannot be read.
    """
    return found.get(
        "model",
        (key_of(model), scenario.base_dir),
        lambda: (
            load_model(model, scenario.base_dir)
            if isinstance(model, str)
            else architecture_from_mapping(model)
        ),
    )


def key_of(named: str | dict[str, Any]) -> str:
    """A name or an inline description as a text that tells it from others."""
    return named if isinstance(named, str) else json.dumps(named)


def digests(scenario: Scenario, found: Found) -> dict[str, str]:
    """The SHA-256 of each file the scenario names beside traces, by its path there; all of them have been read."""
    models = (scenario.model, *(group.model for group in scenario.deployment.groups or ()))
    paths = {name: model_file(name, scenario.base_dir) for name in models if isinstance(name, str)}
    if isinstance(scenario.device, str):
        paths[scenario.device] = device_file(scenario.device, scenario.base_dir)
    prices = scenario.economics.prices if scenario.economics is not None else None
    named = (*scenario.workload.files, *([prices] if prices is not None else []))
    paths |= {name: scenario.base_dir / name for name in named}
    return {
        name: found.get("file", (path,), partial(_sha256, path))
        for name, path in paths.items()
        if path is not None
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
