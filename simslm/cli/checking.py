"""``simslm check``: what a scenario means, before running it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simslm.api import Prepared, load_scenario, prepare
from simslm.catalog.work import IterationShape
from simslm.cli import screen
from simslm.cli.simulation import overrides
from simslm.units import bytes_, number, seconds


@dataclass(frozen=True, slots=True)
class Estimate:
    """A hand calculation of the steady state, not a simulation.

    Attributes:
        batch: sequences that decode together when there is always work: the batch limit or what the KV holds.
        decode_s: latency of such an iteration.
        capacity_rps: requests per second of all replicas together at that batch.
        offered_rps: arrival rate, None where requests do not arrive at a rate.
        prompt: mean prompt, tokens.
        output: mean output, tokens.
    """

    batch: int
    decode_s: float
    capacity_rps: float
    offered_rps: float | None
    prompt: float
    output: float

    @property
    def load(self) -> float | None:
        return None if self.offered_rps is None else self.offered_rps / self.capacity_rps


def check(path: Path, sets: list[str], seed: int | None, as_json: bool) -> None:
    """Validates a scenario and prints what it comes to."""
    prepared = prepare(load_scenario(path, overrides(sets, seed)))
    expected = estimate(prepared)
    coverage = covered(prepared, expected)
    if as_json:
        screen.show_json(_facts(prepared, expected, coverage))
    else:
        _show(path, prepared, expected, coverage)


def estimate(prepared: Prepared) -> Estimate:
    """Batch, latency and capacity when the replicas always have work.

    A sequence is half through its output on average, so it holds ``prompt + output / 2`` tokens; a request
    takes its share of ``output`` decode iterations of the full batch plus its own prefill.
    """
    requests, engine = prepared.requests, prepared.scenario.deployment.engine
    prompt, output = float(requests.prompt_tokens.mean()), float(requests.output_tokens.mean())
    held = prompt + output / 2
    tokens = prepared.groups[0].memory.num_gpu_blocks * engine.block_size
    batch = max(1, min(engine.max_num_seqs, int(tokens / held), len(requests)))
    decode = prepared.groups[0].cost.decode(batch).latency_s(batch * held)
    whole = round(prompt)
    prefill = IterationShape(batch, round(batch * held), 1, whole, 0, whole * (whole + 1) / 2)
    per_request = output * decode / batch + max(prepared.groups[0].cost.latency_s(prefill) - decode, 0.0)
    return Estimate(
        batch, decode, len(prepared.priced) / per_request, requests.arrival_rate_rps, prompt, output
    )


def covered(prepared: Prepared, expected: Estimate) -> dict[str, bool]:
    """Which typical iterations lie inside what was measured."""
    requests = prepared.requests
    longest = float(np.max(requests.prompt_tokens + requests.output_tokens))
    held, batch = expected.prompt + expected.output / 2, expected.batch
    budget = prepared.scenario.deployment.engine.max_num_batched_tokens
    half, most = (min(float(prompt), budget) for prompt in np.percentile(requests.prompt_tokens, [50, 99]))
    shapes = {
        "one sequence decoding": (1, held, 0, 0.0),
        f"full batch of {batch} decoding": (batch, batch * held, 0, 0.0),
        "one sequence at the longest context": (1, longest, 0, 0.0),
        "median prompt alone": (0, 0.0, 1, half),
        "99th percentile prompt alone": (0, 0.0, 1, most),
        f"median prompt beside {batch} decoding": (batch, batch * held, 1, half),
    }
    seqs, context, prompts, tokens = np.array(list(shapes.values()), dtype=float).T
    pairs = tokens * (tokens + 1) / 2
    costs = prepared.groups[0].cost.evaluate(
        IterationShape(seqs, context, prompts, tokens, np.zeros(len(tokens)), pairs)
    )
    return {name: bool(inside) for name, inside in zip(shapes, costs.in_domain, strict=True)}


def _facts(prepared: Prepared, expected: Estimate, coverage: dict[str, bool]) -> dict[str, Any]:
    memory, cost, requests = prepared.groups[0].memory, prepared.groups[0].cost, prepared.requests
    return {
        "name": prepared.scenario.name,
        "model": prepared.groups[0].architecture.name,
        "device": prepared.device.name,
        "parameters": prepared.groups[0].architecture.parameters(),
        "weight_bytes": memory.weights,
        "activation_bytes": memory.activations,
        "replica_memory_bytes": memory.share,
        "kv_block_bytes": memory.block,
        "num_gpu_blocks": memory.num_gpu_blocks,
        "kv_tokens": memory.num_gpu_blocks * prepared.scenario.deployment.engine.block_size,
        "max_model_len": prepared.groups[0].max_model_len,
        "requests": len(requests),
        "dropped": dict(requests.dropped),
        "mean_prompt_tokens": expected.prompt,
        "mean_output_tokens": expected.output,
        "largest_batch": expected.batch,
        "full_batch_iteration_s": expected.decode_s,
        "estimated_capacity_rps": expected.capacity_rps,
        "offered_rps": expected.offered_rps,
        "expected_load": expected.load,
        "cost_source": cost.source,
        "engine": cost.engine,
        "energy": cost.power_note or "measured",
        "in_domain": coverage,
    }


def _show(path: Path, prepared: Prepared, expected: Estimate, coverage: dict[str, bool]) -> None:
    memory, requests, scenario = prepared.groups[0].memory, prepared.requests, prepared.scenario
    tokens = memory.num_gpu_blocks * scenario.deployment.engine.block_size
    model = prepared.groups[0].architecture
    print(f"{path} is a valid scenario.")
    print()
    facts = [
        ("model", f"{model.name}, {model.parameters() / 1e9:.3f} B parameters, {scenario.dtype}"),
        (
            "device",
            f"{prepared.device.name}, {len(prepared.priced)} replica(s) of {bytes_(memory.share)} each",
        ),
        ("weights", f"{bytes_(memory.weights)}, and {bytes_(memory.activations)} of activations at the peak"),
        ("KV cache", f"{memory.num_gpu_blocks:,} blocks of {bytes_(memory.block)} = {tokens:,} tokens"),
        ("requests", f"{len(requests):,} from {requests.source}"),
        ("lengths", f"mean {number(expected.prompt)} prompt and {number(expected.output)} output tokens"),
        ("largest batch", f"{expected.batch} sequences, {seconds(expected.decode_s)} per iteration"),
        ("capacity", f"about {number(expected.capacity_rps)} requests/s (estimated, not simulated)"),
        ("expected load", _load(expected)),
        ("costs", _source(prepared)),
        ("energy", prepared.groups[0].cost.power_note or "known"),
    ]
    facts += [("dropped", f"{count:,} rows: {reason}") for reason, count in requests.dropped.items()]
    facts += [("note", text) for text in requests.notes]
    screen.show_facts(facts)
    if prepared.groups[0].cost.source != "roofline":
        print()
        print("inside the measured domain:")
        screen.show_facts([(name, "yes" if inside else "no: the roofline carries the shape on") for name, inside
                           in coverage.items()])  # fmt: skip


def _load(expected: Estimate) -> str:
    if expected.offered_rps is None or expected.load is None:
        return "requests do not arrive at a rate"
    verdict = "more than it can serve" if expected.load > 1 else "sustainable"
    return f"{expected.load:.0%} ({number(expected.offered_rps)} requests/s offered): {verdict}"


def _source(prepared: Prepared) -> str:
    if prepared.groups[0].cost.source == "roofline":
        return "roofline, not measured"
    return f"{prepared.groups[0].cost.source} on {prepared.groups[0].cost.engine}"
