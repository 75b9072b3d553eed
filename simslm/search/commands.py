"""The commands of a point: one simulates exactly it, others serve it with vLLM."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from simslm.catalog.models import model_entry, model_names
from simslm.scenario.portions import utilizations
from simslm.scenario.schema import GroupSpec, Replicas, Scenario
from simslm.scenario.speculation import Speculative
from simslm.search.space import Parameters

FIRST_PORT = 8000
"""Port of the first replica; the others follow."""

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
MPS = (
    "export CUDA_MPS_PIPE_DIRECTORY=/tmp/nvidia-mps CUDA_MPS_LOG_DIRECTORY=/tmp/nvidia-mps-log",
    "nvidia-cuda-mps-control -d",
)
"""One daemon for all devices; the servers find it by the environment."""

CHUNKED = {"chunked-prefill": "--enable-chunked-prefill", "prefill-first": "--no-enable-chunked-prefill"}
"""Batching policies that vLLM has, and the flag that chooses each."""

QUEUES = {"fcfs": "fcfs", "priority": "priority"}


@dataclass(frozen=True, slots=True)
class _Place:
    """A replica's number, its devices, and its share of the first of them."""

    number: int
    devices: tuple[int, ...]
    memory: float
    tenants: int


def simulate_command(again: Sequence[str], parameters: Parameters) -> str:
    """The command line that simulates a point, quoted for a shell.

    Args:
        again: the scenario's file and what is set in it; a scenario in no file is called ``SCENARIO``.
        parameters: what else is set, in this order.
    """
    words = ["simslm", "simulate", *(again or ("SCENARIO",))]
    for path, value in parameters.items():
        words += ["--set", f"{path}={json.dumps(value)}"]
    return shlex.join(words).encode(errors="backslashreplace").decode()


def serve_commands(scenario: Scenario) -> str:
    """A shell script that serves a scenario's deployment with vLLM: one server for each replica, on its own port.

    Flags that vLLM does not have are named in comments, so that nothing is left out in silence.

    Args:
        scenario: of the point.
    """
    specs: tuple[Replicas, ...] = scenario.deployment.groups or (scenario.deployment,)
    tenants = Counter[int]()
    for spec in specs:
        tenants.update(dict.fromkeys(_devices(scenario, spec), spec.replicas_per_device))
    lines, servers = _sharing(scenario, tenants), []
    for spec, part in zip(specs, utilizations(scenario, specs), strict=True):
        lines += [f"# {text}" for text in _missing(scenario, spec)]
        numbers, width = _devices(scenario, spec), spec.tensor_parallel_size
        for first in range(0, len(numbers), width):
            devices = numbers[first : first + width]
            for _ in range(spec.replicas_per_device):
                memory = part / spec.replicas_per_device
                place = _Place(len(servers), devices, memory, tenants[devices[0]])
                servers.append(_serve(scenario, spec, place))
    if scenario.deployment.gateway is not None:
        lines.append(f"# vLLM has no gateway: put a {scenario.deployment.gateway.policy} in front")
    if len(servers) == 1:
        return "\n".join([*lines, *servers])
    policies = ", ".join(dict.fromkeys(spec.router.policy for spec in specs))
    ports = f"{FIRST_PORT} to {FIRST_PORT + len(servers) - 1}"
    chosen = scenario.deployment.group_router
    among = "" if chosen is None else f" among the groups by {chosen.policy}, then"
    front = f"# in front of ports {ports}: a load balancer that routes{among} {policies}"
    return "\n".join([*lines, *(f"{server} &" for server in servers), front, "wait"])


def _devices(scenario: Scenario, spec: Replicas) -> tuple[int, ...]:
    return getattr(spec, "devices", None) or tuple(range(scenario.deployment.num_devices))


def _sharing(scenario: Scenario, tenants: Counter[int]) -> list[str]:
    """What has to be started before servers that share a device."""
    sharing = scenario.deployment.sharing
    if max(tenants.values()) == 1:
        return []
    if sharing in ("mps", "sm-partition"):
        return list(MPS)
    if sharing == "streams":
        return [
            "# vLLM cannot run replicas as streams of one process; without MPS these take turns (time-slice)"
        ]
    return []


def _missing(scenario: Scenario, spec: Replicas) -> list[str]:
    """Settings of a group of replicas for which vLLM has no flag here."""
    engine = spec.engine
    cost = (spec.cost if isinstance(spec, GroupSpec) else None) or scenario.cost
    found = [
        f"what was simulated is changed by {change.words()}; vLLM serves the model without it"
        for change in cost.changes
        if change.key != "host"
    ]
    if isinstance(spec, GroupSpec) and spec.role != "both":
        found.append(
            f"group {spec.name} only runs the {spec.role} phase; vLLM needs a --kv-transfer-config for that"
        )
    if engine.speculative_config is not None and engine.speculative_config.policy.policy != "fixed":
        policy = engine.speculative_config.policy.policy
        found.append(f"vLLM has no {policy}: it proposes num_speculative_tokens in every iteration")
    if engine.switches:
        found.append("vLLM preempts the youngest, and priorities do not change while requests are served")
    if engine.batching.policy not in CHUNKED:
        found.append(f"vLLM has no {engine.batching.policy} batching; its own is used instead")
    if engine.scheduling_policy.policy not in QUEUES:
        found.append(f"vLLM has no {engine.scheduling_policy.policy} queue; fcfs is used instead")
    if engine.preemption == "swap":
        found.append("swapping needs the V0 engine of vLLM")
    if engine.swapping.turns:
        found.append("vLLM keeps finished turns on the host through a --kv-transfer-config only")
    if engine.admission.policy != "open":
        found.append(f"admission {engine.admission.policy} has to be done in front of the servers")
    return found


def _serve(scenario: Scenario, spec: Replicas, place: _Place) -> str:
    """One server, with its environment."""
    environment = f"CUDA_VISIBLE_DEVICES={','.join(map(str, place.devices))}"
    if place.tenants > 1 and scenario.deployment.sharing == "sm-partition":
        environment += f" CUDA_MPS_ACTIVE_THREAD_PERCENTAGE={100 / place.tenants:g}"
    return f"{environment} {shlex.join(_words(scenario, spec, place))}"


def _words(scenario: Scenario, spec: Replicas, place: _Place) -> list[str]:
    engine = spec.engine
    longest = scenario.max_model_len
    model: Any = scenario.model
    if isinstance(spec, GroupSpec):
        model, longest = spec.model or model, spec.max_model_len or longest
    words = ["vllm", "serve", repository(model), "--dtype", DTYPES[scenario.dtype]]
    if longest:
        words += ["--max-model-len", str(longest)]
    words += ["--max-num-seqs", str(engine.max_num_seqs)]
    words += ["--max-num-batched-tokens", str(engine.max_num_batched_tokens)]
    words += ["--gpu-memory-utilization", f"{place.memory:.6g}", "--block-size", str(engine.block_size)]
    if engine.num_gpu_blocks is not None:
        words += ["--num-gpu-blocks-override", str(engine.num_gpu_blocks)]
    if engine.batching.policy in CHUNKED:
        words.append(CHUNKED[engine.batching.policy])
    words.append("--enable-prefix-caching" if engine.prefix_caching else "--no-enable-prefix-caching")
    if engine.speculative_config is not None:
        words += ["--speculative-config", json.dumps(_speculation(engine.speculative_config))]
    words += ["--scheduling-policy", QUEUES.get(engine.scheduling_policy.policy, "fcfs")]
    if engine.preemption == "swap":
        words += ["--preemption-mode", "swap", "--swap-space", f"{engine.swap_space:g}"]
    if spec.tensor_parallel_size > 1:
        words += ["--tensor-parallel-size", str(spec.tensor_parallel_size)]
    return [*words, "--port", str(FIRST_PORT + place.number)]


def _speculation(asked: Speculative) -> dict[str, Any]:
    """vLLM's ``speculative_config``."""
    proposer = {"method": "ngram"} if asked.model is None else {"model": repository(asked.model)}
    return {**proposer, "num_speculative_tokens": asked.num_speculative_tokens}


def repository(model: str | Mapping[str, Any]) -> str:
    """What vLLM calls a model: the repository that the catalogue names, or the user's own path."""
    if not isinstance(model, str):
        return str(model.get("name") or "MODEL")
    return _named(model)


@lru_cache
def _named(model: str) -> str:
    if model not in model_names():
        return model.removesuffix("/config.json")
    return model_entry(model).source.removeprefix("https://huggingface.co/").partition("/blob/")[0]
