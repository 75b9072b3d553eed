"""What can be said of a scenario by hand, before it is simulated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np

from simslm.api import Prepared, PreparedGroup
from simslm.catalog.work import IterationShape
from simslm.sim.ahead import served_by
from simslm.sim.deployment import Deployment


@dataclass(frozen=True, slots=True)
class Expectation:
    """One group of replicas when it always has work: a hand calculation of the steady state.

    Attributes:
        group: the replicas.
        requests: that go to them.
        never_fit: those of them that are rejected for their size.
        prompt: mean prompt of the others, tokens.
        output: mean output, tokens.
        batch: sequences that decode together: the batch limit, what the KV cache holds, or clients in a closed loop.
        decode_s: latency of such an iteration.
        capacity_rps: requests per second of the whole group, as if replicas on one device did not slow each other.
        in_domain: which typical iterations lie inside what was measured.
        assumed: whether ``requests`` is an assumption, for which group takes a request depends on what the groups do.
    """

    group: PreparedGroup
    requests: int
    never_fit: int
    prompt: float
    output: float
    batch: int
    decode_s: float
    capacity_rps: float
    in_domain: dict[str, bool]
    assumed: bool = False


def expectations(prepared: Prepared) -> list[Expectation]:
    """What to expect of each group that can serve any of its requests."""
    deployment, requests = prepared.deployment(), prepared.requests
    ahead = served_by(requests, deployment)
    everywhere = np.ones((len(prepared.groups), len(requests)), dtype=bool)
    served = everywhere if ahead is None else ahead
    found = [_expectation(prepared, deployment, number, served) for number in range(len(prepared.groups))]
    known = [one for one in found if one is not None]
    return known if ahead is not None else _balanced(known)


def _balanced(known: list[Expectation]) -> list[Expectation]:
    """The same where a policy looks at what groups do: as if they took what they can serve in proportion to their
    capacity."""
    total = sum(one.capacity_rps for one in known if _role(one.group) != "decode")
    return [
        one
        if _role(one.group) == "decode"
        else replace(
            one,
            requests=round((one.requests - one.never_fit) * one.capacity_rps / total),
            never_fit=0,
            assumed=True,
        )
        for one in known
    ]


def never_fit(prepared: Prepared) -> int:
    """Requests that no group can serve."""
    deployment, requests = prepared.deployment(), prepared.requests
    masks = [deployment.servable(requests, number) for number in deployment.open_groups]
    return int(np.count_nonzero(~np.any(masks, axis=0)))


def _role(group: PreparedGroup) -> str:
    return getattr(group.spec, "role", "both")


def _expectation(
    prepared: Prepared, deployment: Deployment, number: int, served_by_group: np.ndarray
) -> Expectation | None:
    """A sequence is half through its output on average, so it holds ``prompt + output / 2`` tokens; a request
    takes its share of ``output`` decode iterations of the full batch plus its own prefill."""
    group, requests = prepared.groups[number], prepared.requests
    cost = group.cost
    sources = [i for i, each in enumerate(deployment.groups) if each.decode_group == number] or [number]
    mine = served_by_group[sources].any(axis=0)
    served = mine & deployment.servable(requests, number)
    if not served.any():
        return None
    prompt, output = (
        float(requests.prompt_tokens[served].mean()),
        float(requests.output_tokens[served].mean()),
    )
    batch = group.batch(prompt + output / 2, _at_once(prepared, served, len(group.devices)))
    held = group.held_tokens(prompt + output / 2)
    decode = cost.decode(batch).latency_s(batch * held)
    whole = round(prompt)
    prefill = IterationShape(batch, round(batch * held), 1, whole, 0, group.prompt_pairs(whole))
    # What a prompt adds to an iteration that decodes anyway, which is less than what it takes alone.
    beside = max(cost.latency_s(prefill) - decode, 0.0)
    alone = cost.latency_s(prefill._replace(decode_seqs=0, decode_ctx_tokens=0))
    per_request = {
        "both": output * decode / batch + beside,
        "prefill": alone,
        "decode": output * decode / batch,
    }[deployment.groups[number].role]
    return Expectation(
        group,
        int(mine.sum()),
        int(mine.sum() - served.sum()),
        prompt,
        output,
        batch,
        decode,
        len(group.devices) / per_request,
        _in_domain(prepared, group, served, batch, held),
    )


def _at_once(prepared: Prepared, served: np.ndarray, replicas: int) -> int:
    """Most requests that are at one replica at once: all of them, or of clients in a closed loop one each."""
    count, loop = int(served.sum()), prepared.requests.closed_loop
    if loop is None:
        return count
    return max(1, ceil(loop.concurrency * count / len(served) / replicas))


def _in_domain(
    prepared: Prepared, group: PreparedGroup, served: np.ndarray, batch: int, held: float
) -> dict[str, bool]:
    prompts = prepared.requests.prompt_tokens[served]
    longest = group.held_tokens(float(np.max(prompts + prepared.requests.output_tokens[served])))
    budget = group.spec.engine.max_num_batched_tokens
    half, most = (min(float(prompt), budget) for prompt in np.percentile(prompts, [50, 99]))
    shapes = {
        "one sequence decoding": (1, held, 0, 0.0),
        f"full batch of {batch} decoding": (batch, batch * held, 0, 0.0),
        "one sequence at the longest context": (1, longest, 0, 0.0),
        "median prompt alone": (0, 0.0, 1, half),
        "99th percentile prompt alone": (0, 0.0, 1, most),
        f"median prompt beside {batch} decoding": (batch, batch * held, 1, half),
    }
    seqs, context, count, tokens = np.array(list(shapes.values()), dtype=float).T
    pairs = np.array([group.prompt_pairs(each) for each in tokens.tolist()])
    costs = group.cost.evaluate(IterationShape(seqs, context, count, tokens, np.zeros(len(tokens)), pairs))
    return {name: bool(inside) for name, inside in zip(shapes, costs.in_domain, strict=True)}


def facts(one: Expectation) -> dict[str, Any]:
    """An expectation as plain values, under the names that ``simslm check --json`` prints."""
    group, memory, cost = one.group, one.group.memory, one.group.cost
    return {
        "name": group.name,
        "model": group.architecture.name,
        "parameters": group.architecture.parameters(),
        "replicas": len(group.devices),
        "weight_bytes": memory.weights,
        "window_bytes": memory.windows,
        "activation_bytes": memory.activations,
        "replica_memory_bytes": memory.share,
        "kv_block_bytes": memory.block,
        "num_gpu_blocks": memory.num_gpu_blocks,
        "kv_tokens": memory.num_gpu_blocks * group.spec.engine.block_size,
        "max_model_len": group.max_model_len,
        "requests": one.requests,
        "never_fit": one.never_fit,
        "mean_prompt_tokens": one.prompt,
        "mean_output_tokens": one.output,
        "largest_batch": one.batch,
        "full_batch_iteration_s": one.decode_s,
        "estimated_capacity_rps": one.capacity_rps,
        "cost_source": cost.source,
        "engine": cost.engine,
        "energy": cost.power_note or ("assumed" if cost.source == "roofline" else "measured"),
        "in_domain": one.in_domain,
    }
