"""The Python interface: load a scenario, simulate it; the command line is a thin layer on these."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from simslm.catalog.architecture import Architecture
from simslm.catalog.devices import Device, device_from_mapping, load_device
from simslm.catalog.models import architecture_from_mapping, load_model
from simslm.cost.load import load_cost
from simslm.cost.model import CostModel
from simslm.errors import ScenarioError
from simslm.metrics.result import Result, summarize
from simslm.policies.registry import create
from simslm.scenario.load import load_scenario
from simslm.scenario.schema import Scenario
from simslm.sim.memory import MemoryPlan, plan_memory
from simslm.sim.replica import EngineConfig
from simslm.sim.world import Deployment, Progress, run
from simslm.workload import generate
from simslm.workload.requests import RequestArrays

__all__ = ["Prepared", "load_scenario", "prepare", "simulate"]


@dataclass(frozen=True)
class Prepared:
    """A scenario with everything it names looked up: ready to run, or to be explained before running.

    Attributes:
        scenario: as the user wrote it.
        architecture: of its model.
        device: that it runs on.
        cost: what an iteration takes.
        memory: where a replica's memory goes.
        max_model_len: longest prompt + output, tokens.
        requests: the workload, drawn or replayed.
    """

    scenario: Scenario
    architecture: Architecture
    device: Device
    cost: CostModel
    memory: MemoryPlan
    max_model_len: int
    requests: RequestArrays

    @property
    def num_replicas(self) -> int:
        return self.scenario.deployment.num_devices

    def deployment(self) -> Deployment:
        """What the simulator needs of it."""
        engine = self.scenario.deployment.engine
        blocks = self.memory.num_gpu_blocks
        return Deployment(
            EngineConfig(
                engine.max_num_seqs,
                engine.max_num_batched_tokens,
                blocks,
                engine.block_size,
                int(engine.watermark * blocks),
            ),
            self.num_replicas,
            self.cost,
            lambda: create("batching", engine.batching),
            lambda: create("routing", self.scenario.deployment.router),
            self.max_model_len,
        )


def prepare(scenario: Scenario) -> Prepared:
    """Looks up model, device, trace and workload.

    Raises:
        SimslmError: something named does not exist, does not fit or cannot be read.
    """
    base, engine = scenario.base_dir, scenario.deployment.engine
    architecture = (
        load_model(scenario.model, base)
        if isinstance(scenario.model, str)
        else architecture_from_mapping(scenario.model)
    )
    device = (
        load_device(scenario.device)
        if isinstance(scenario.device, str)
        else device_from_mapping(scenario.device)
    )
    longest = scenario.max_model_len or architecture.max_position_embeddings
    if longest > architecture.max_position_embeddings:
        raise ScenarioError(
            f"max_model_len is {longest}, but {architecture.name} has "
            f"{architecture.max_position_embeddings} positions",
            where=scenario.name,
        )
    memory = plan_memory(
        architecture,
        device,
        scenario.dtype,
        gpu_memory_utilization=engine.gpu_memory_utilization,
        replicas_per_device=scenario.deployment.replicas_per_device,
        max_num_seqs=engine.max_num_seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        block_size=engine.block_size,
        num_gpu_blocks=engine.num_gpu_blocks,
    )
    cost = load_cost(scenario.cost, architecture, device, scenario.dtype, base)
    requests = generate(scenario.workload, scenario.seed, longest, base)
    return Prepared(scenario, architecture, device, cost, memory, longest, requests)


def simulate(
    scenario: Scenario, *, progress: Progress | None = None, jump: bool = True, command: str = ""
) -> Result:
    """Runs a scenario.

    Args:
        scenario: from :func:`load_scenario`.
        progress: called with requests done, requests in all, and simulated seconds.
        jump: False steps through every iteration instead of jumping; the result is the same, to the bit.
        command: what reproduces the run, for the manifest.

    Raises:
        ScenarioError: not one request of the workload can be served.
        SimslmError: see :func:`prepare`.
    """
    begun = time.perf_counter()
    prepared = prepare(scenario)
    log = run(prepared.requests, prepared.deployment(), jump=jump, progress=progress)
    bounds = scenario.slo.bounds() if scenario.slo else {}
    result = summarize(
        scenario.name,
        log,
        prepared.requests,
        prepared.cost,
        slo=bounds,
        num_gpu_blocks=prepared.memory.num_gpu_blocks,
    )
    counts = result.summary["requests"]
    if counts["rejected"] == counts["arrived"] and counts["arrived"]:
        raise ScenarioError(
            f"none of the {counts['arrived']} requests can be served: each has more prompt + output tokens than "
            f"max_model_len ({prepared.max_model_len}) or the KV cache "
            f"({prepared.memory.num_gpu_blocks} blocks) holds, or a prompt beyond max_num_batched_tokens",
            where=scenario.name,
            remedy="shorten the requests, or choose a model or device with more room",
        )
    result.manifest.update(
        _manifest(prepared, log.events, log.interrupted, time.perf_counter() - begun, command)
    )
    return result


def _manifest(
    prepared: Prepared, events: int, interrupted: bool, wall_time_s: float, command: str
) -> dict[str, Any]:
    scenario, cost, architecture = prepared.scenario, prepared.cost, prepared.architecture
    packages = ("simslm", "simpy", "numpy", "pyarrow", "pydantic")
    return {
        "schema_version": 1,
        "name": scenario.name,
        "command": command,
        "scenario": scenario.model_dump(mode="json"),
        "seed": scenario.seed,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "traces": [{"path": cost.provenance["trace"]} | cost.provenance]
        if "trace" in cost.provenance
        else [],
        "cost": {"source": cost.source, "engine": cost.engine, "note": cost.power_note},
        "model": {
            "name": architecture.name,
            "parameters": architecture.parameters(),
            "weight_bytes": architecture.weight_bytes(scenario.dtype),
            "kv_bytes_per_token": architecture.kv_bytes_per_token(scenario.dtype),
        },
        "device": {"name": prepared.device.name, "memory_bytes": prepared.device.memory_bytes},
        "workload": {
            "source": prepared.requests.source,
            "dropped": dict(prepared.requests.dropped),
            "notes": list(prepared.requests.notes),
        },
        "wall_time_s": wall_time_s,
        "events": events,
        "interrupted": interrupted,
    }
