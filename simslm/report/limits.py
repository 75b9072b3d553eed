"""The limits of the engines: those of each group of replicas, and which group's a fact is about.

A scenario without ``deployment.groups`` is one group. Replicas are numbered group by group, in the order of the
scenario.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simslm.report.tables import Columns, RunTables, dig, figure_of

WHOLE_PROMPTS = ("orca", "prefill-first", "static")
"""Batching policies that never split a prompt."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The engine's limits per replica of a group; None where the scenario does not say.

    ``block_tokens`` is the KV block size, ``mean_prompt_tokens`` what a waiting request asks for on the mean,
    ``watermark`` the share of blocks that admission keeps free. ``group`` is the group's name where there are several,
    ``place`` where its keys are in a scenario with groups; both are empty otherwise.
    Groups with the same ``kv_pool`` take their blocks from one store; it is empty where a replica has its own.
    """

    max_num_seqs: float | None
    max_num_batched_tokens: float | None
    num_gpu_blocks: float | None
    block_tokens: float
    mean_prompt_tokens: float
    chunked: bool
    watermark: float
    blocks_set_by_hand: bool
    replicas_per_device: float
    swaps: bool = False
    preemption_policy: str = "youngest"
    scheduling_policy: str = "fcfs"
    admission: str = "open"
    max_model_len: float | None = None
    role: str = "both"
    group: str = ""
    place: str = ""
    kv_pool: str = ""

    def key(self, name: str) -> str:
        """A key of the engine as a scenario has it: with its place where there are groups."""
        return f"{self.place}.engine.{name}" if self.place else name

    def spec_key(self, name: str) -> str:
        """The same of a key beside the engine."""
        return f"{self.place}.{name}" if self.place else name

    def length_key(self) -> str:
        """The key of the longest prompt and output: a group's own, where there are several."""
        return self.spec_key("max_model_len") if self.group else "max_model_len"

    @property
    def of_group(self) -> str:
        """Words that follow what is the group's; empty where there is one group."""
        return f" of group `{self.group}`" if self.group else ""

    @property
    def in_group(self) -> str:
        """Words that say where something was; empty where there is one group."""
        return f" in group `{self.group}`" if self.group else ""


def engine_limits(run: RunTables) -> list[Limits]:
    """The limits of every group, in the order of the scenario."""
    stated = dig(run.scenario, "deployment.groups")
    specs = stated or [dig(run.scenario, "deployment", {})]
    prompts = run.requests["prompt_tokens"]
    mean = float(np.nanmean(prompts)) if len(prompts) else 0.0
    known = _known(run)
    found = []
    for number, spec in enumerate(specs):
        blocks = figure_of(known[number], "num_gpu_blocks") if len(known) == len(specs) else None
        blocks = figure_of(run.summary, "kv.num_gpu_blocks") if blocks is None else blocks
        name = str(dig(spec, "name", number)) if len(specs) > 1 else ""
        place = f"deployment.groups[{number}]" if stated else ""
        longest = figure_of(spec, "max_model_len") or figure_of(run.scenario, "max_model_len")
        found.append(_limits(spec, blocks, mean, longest, name, place))
    return found


def _limits(
    spec: Any, blocks: float | None, mean_prompt: float, longest: float | None, name: str, place: str
) -> Limits:
    engine, role = dig(spec, "engine", {}), str(dig(spec, "role", "both"))
    return Limits(
        max_num_seqs=figure_of(engine, "max_num_seqs"),
        max_num_batched_tokens=figure_of(engine, "max_num_batched_tokens"),
        num_gpu_blocks=blocks,
        block_tokens=figure_of(engine, "block_size") or 16.0,
        mean_prompt_tokens=mean_prompt,
        chunked=role == "decode" or dig(engine, "batching.policy", "") not in WHOLE_PROMPTS,
        watermark=figure_of(engine, "watermark") or 0.0,
        blocks_set_by_hand=dig(engine, "num_gpu_blocks") is not None,
        replicas_per_device=figure_of(spec, "replicas_per_device") or 1.0,
        swaps=dig(engine, "preemption") == "swap",
        preemption_policy=str(dig(engine, "preemption_policy.policy", "youngest")),
        scheduling_policy=str(dig(engine, "scheduling_policy.policy", "fcfs")),
        admission=str(dig(engine, "admission.policy", "open")),
        max_model_len=longest,
        role=role,
        group=name,
        place=place,
        kv_pool=str(dig(spec, "kv_pool", "")),
    )


def _known(run: RunTables) -> list[Any]:
    """What the manifest says of the groups; empty where it does not."""
    return list(dig(run.manifest, "groups", []))


def replicas_of(run: RunTables) -> list[int]:
    """How many replicas each group has; empty where the manifest does not say."""
    counts = [figure_of(group, "replicas") for group in _known(run)]
    return [int(each) for each in counts if each is not None] if None not in counts else []


def group_of(run: RunTables, replica: np.ndarray) -> np.ndarray:
    """The number of the group of each replica, of the shape of ``replica``; -1 where the replica is not known.

    A manifest that does not say how many replicas a group has is of one group.
    """
    counts = replicas_of(run)
    if len(counts) < 2:
        return np.where(np.isfinite(replica), 0, -1)
    number = np.searchsorted(np.cumsum(counts), np.nan_to_num(replica, nan=-1.0), side="right")
    return np.where(np.isfinite(replica) & (replica >= 0) & (number < len(counts)), number, -1)


def rows_of(columns: Columns, mask: np.ndarray) -> Columns:
    """Those rows of a table for which a mask, of shape ``(rows,)``, is true."""
    return {name: column[mask] for name, column in columns.items()}


def leading(groups: np.ndarray, weights: np.ndarray, among: Sequence[Limits]) -> int:
    """The group with the largest sum of weights, by number; the first of several, also where all are 0.

    Args:
        groups: of each row, -1 = not known, shape ``(rows,)``.
        weights: of each row, the same shape.
        among: the groups.
    """
    known = groups >= 0
    sums = np.bincount(groups[known], weights=np.nan_to_num(weights[known]), minlength=len(among))
    return int(np.argmax(sums[: len(among)]))


def door(among: Iterable[Limits]) -> Limits:
    """The first group of arrivals that rejects requests; without one, the first group."""
    asked = [each for each in among if each.role != "decode"]
    return next((each for each in asked if each.admission != "open"), asked[0])


def handover_s(run: RunTables) -> np.ndarray:
    """How long each request was between the phases, shape ``(requests,)``: from its first token to its first decode
    iteration on another replica than the one that prefilled it.

    It waits there for a place in the decode group; the copy of its KV cache is a part of it. 0 for requests that stay
    where they are, and in a run that notes no stages.
    """
    between = np.zeros(len(run.requests["arrival_s"]))
    roles = {each.role for each in engine_limits(run)}
    if run.stages is None or "decode" not in roles or not len(between):
        return between
    order = np.argsort(run.requests["request_id"], kind="stable")
    ids, stages = run.requests["request_id"][order], rows_of(run.stages, run.stages["decode"])
    place = np.searchsorted(ids, stages["request_id"])
    found = np.flatnonzero(
        (place < len(ids)) & (ids[np.minimum(place, len(ids) - 1)] == stages["request_id"])
    )
    begun = np.full(len(between), np.inf)
    # A request decodes in several stages after preemptions: the earliest is the one after the hand-over.
    np.minimum.at(begun, order[place[found]], stages["start_s"][found])
    gap = begun - run.requests["first_token_s"]
    return np.where(np.isfinite(gap), np.maximum(gap, 0.0), 0.0)
