"""The manifest of a run: enough to repeat it from anywhere."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

from simslm.cost.interference import Contended
from simslm.preparation.operators import device_roofline
from simslm.preparation.prepared import Prepared
from simslm.scenario.portions import utilizations
from simslm.scenario.schema import Scenario
from simslm.traces.schema import SOURCES
from simslm.transforms.registry import of_device


def manifest(
    prepared: Prepared, events: int, interrupted: bool, wall_time_s: float, command: str
) -> dict[str, Any]:
    """What ``manifest.json`` holds.

    Args:
        prepared: the scenario that was run.
        events: processed by SimPy.
        interrupted: whether the run was stopped early.
        wall_time_s: of the run, repeats for its intervals included.
        command: the command line that repeats it.
    """
    scenario = prepared.scenario
    first = max(prepared.groups, key=lambda group: SOURCES.index(group.cost.source))
    cost, architecture, held = first.cost, prepared.groups[0].architecture, prepared.groups[0].held
    packages = ("simslm", "simpy", "numpy", "pyarrow", "pydantic")
    origins = [group.cost.provenance for group in prepared.groups]
    return {
        "schema_version": 1,
        "name": scenario.name,
        "command": command,
        "scenario": _resolved(scenario),
        "base_dir": str(scenario.base_dir.resolve()),
        "seed": scenario.seed,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "traces": [origin for origin in origins if "trace" in origin],
        "files": [{"path": path, "sha256": digest} for path, digest in prepared.files.items()],
        "cost": {"source": cost.source, "engine": cost.engine, "note": cost.power_note},
        "sharing": _sharing_facts(prepared),
        "groups": [
            {
                "name": group.name,
                "model": group.architecture.name,
                "source": group.cost.source,
                "engine": group.cost.engine,
                "changed": [each.words() for each in of_device(group.transforms)],
                "replicas": len(group.devices),
                "num_gpu_blocks": group.memory.num_gpu_blocks,
                "weight_bytes": group.held.weight_bytes,
                "kv_bytes_per_token": group.held.kv_bytes_per_token,
                "roofline": device_roofline(prepared, group).facts(),
            }
            for group in prepared.groups
        ],
        "model": {
            "name": architecture.name,
            "parameters": architecture.parameters(),
            "weight_bytes": held.weight_bytes,
            "kv_bytes_per_token": held.kv_bytes_per_token,
        },
        "device": {"name": prepared.device.name, "memory_bytes": prepared.device.memory_bytes},
        "workload": {
            "source": prepared.workload.source,
            "dropped": dict(prepared.workload.dropped),
            "notes": list(prepared.workload.notes),
        },
        "wall_time_s": wall_time_s,
        "events": events,
        "interrupted": interrupted,
    }


def _sharing_facts(prepared: Prepared) -> dict[str, Any] | None:
    """Where the interference between replicas comes from; None when no device is shared."""
    most = max(prepared.tenants.values())
    if most == 1:
        return None
    way = prepared.sharing(most)
    if isinstance(way, Contended):
        return {"kind": way.name, "source": "measured", "contention": way.contention}
    return {"kind": way.name, "source": "modelled"}


def _resolved(scenario: Scenario) -> dict[str, Any]:
    """The scenario with every default written out, among them the part of the memory that each group has."""
    resolved = scenario.model_dump(mode="json")
    groups = scenario.deployment.groups or ()
    for i, part in enumerate(utilizations(scenario, groups)):
        resolved["deployment"]["groups"][i]["engine"]["gpu_memory_utilization"] = part
    return resolved
