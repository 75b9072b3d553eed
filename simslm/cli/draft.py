"""The text of a first scenario, with a comment at every key that a newcomer would look up."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

COLUMN = 54
"""Column in which comments begin."""

TABLE_OF_ARRIVALS = "also gamma, mmpp, diurnal, closed-loop, all-at-once"


@dataclass(frozen=True, slots=True)
class Draft:
    """What a scenario is made of.

    Attributes:
        file: name of the scenario's file, for the commands in its comments.
        name: of the scenario.
        model, device, dtype: as in the catalogue.
        trace: of that model on that device, relative to the file; None = roofline.
        source: of the trace, e.g. ``measured on simslm-engine 0.1.0``; empty without one.
        arrivals: the scenario's section.
        prompt, output: mean and 95th percentile of tokens; without the latter all are alike.
        longest: tokens of the model's context.
        slo: bounds and attainment, by key.
        replicas: to search over.
        max_num_seqs: to search over; the middle one is the deployment's.
        max_num_batched_tokens: of the deployment.
        sharing: how replicas share the device.
        energy: whether the costs know power.
    """

    file: str
    name: str
    model: str
    device: str
    dtype: str
    trace: str | None
    source: str
    arrivals: dict[str, Any]
    prompt: tuple[float, float | None]
    output: tuple[float, float | None]
    longest: int
    slo: dict[str, float]
    replicas: tuple[int, ...]
    max_num_seqs: tuple[int, ...]
    max_num_batched_tokens: int
    sharing: str
    energy: bool

    def text(self) -> str:
        """The scenario as YAML."""
        lines = [
            f"# {self.model} on {self.device}: `simslm check {self.file}` explains it, `simslm schema` has every key.",
            f"# Any key can be set for a run: `simslm simulate {self.file} --set {_seqs_key()}=128`.",
            "schema_version: 1",
            _said(f"name: {_yaml(self.name)}", "its runs go to runs/<name>"),
            _said("seed: 0", "same scenario, same seed: the same result, to the byte"),
            _said(f"model: {_yaml(self.model)}", "`simslm list models`, or a Hugging Face config.json"),
            _said(f"device: {_yaml(self.device)}", "`simslm list devices`"),
            _said(f"dtype: {self.dtype}", "of weights and KV cache"),
            *self._cost(),
            "workload:",
            _said("  num_requests: 2000", "more requests make tails surer"),
            _said(f"  arrivals: {_flow(self.arrivals)}", TABLE_OF_ARRIVALS),
            _said(f"  prompt_tokens: {_flow(self._lengths(self.prompt, 0.75))}", ""),
            _said(f"  output_tokens: {_flow(self._lengths(self.output, 0.25))}", ""),
            "  # your own traffic, in place of these: replay: {format: csv, path: requests.csv}",
            "  # with the columns arrival_s,prompt_tokens,output_tokens; or azure-2024, burstgpt, mooncake, vidur",
            "deployment:",
            _said("  num_devices: 1", ""),
            _said("  replicas_per_device: 1", "copies of the model that share a device"),
            _said(f"  sharing: {self.sharing}", "and how they do: mps, time-slice, streams, sm-partition"),
            _said("  engine:", "vLLM's options, under vLLM's names"),
            _said("    batching: {policy: chunked-prefill}", "`simslm list policies`"),
            _said(f"    max_num_seqs: {self._middle()}", "most sequences that run at once"),
            _said(
                f"    max_num_batched_tokens: {self.max_num_batched_tokens}", "most tokens of one iteration"
            ),
            _said("    gpu_memory_utilization: 0.9", "of the device, divided by its replicas"),
            _said(f"slo: {_flow(self.slo)}", "seconds; attainment: share that must meet all bounds"),
            *self._search(),
        ]
        return "\n".join(lines) + "\n"

    def _cost(self) -> list[str]:
        if self.trace is not None:
            return [_said(f"cost: {{trace: {_yaml(self.trace)}}}", self.source)]
        measure = f"simslm profile --model {self.model} --dtype {self.dtype}"
        return [
            _said("cost: {roofline: {}}", "computed, not measured, and every answer says so; on the device:"),
            f"# `{measure} -o traces/mine`, then cost: {{trace: traces/mine}}",
        ]

    def _search(self) -> list[str]:
        rated = "rate_rps" in self.arrivals
        figures = ("slo.goodput_rps" if rated else "throughput.output_tokens_per_s", "tpot_s.p99")
        objectives: dict[str, Any] = dict(zip(figures, ("max", "min"), strict=True))
        if self.energy:
            objectives["energy.j_per_output_token"] = "min"
        return [
            _said("search:", f"`simslm search {self.file} -o DIR` tries all of these"),
            "  space:",
            f"    deployment.replicas_per_device: {list(self.replicas)}",
            f"    {_seqs_key()}: {list(self.max_num_seqs)}",
            _said(f"  objectives: {_flow(objectives)}", "`simslm explain`; the slo above is a constraint"),
            _said("  method: grid", "also random, nsga2, halving, advisor"),
        ]

    def _middle(self) -> int:
        return self.max_num_seqs[len(self.max_num_seqs) // 2]

    def _lengths(self, tokens: tuple[float, float | None], part: float) -> dict[str, Any]:
        """Lengths that fit a part of the model's context."""
        mean, p95 = tokens
        if p95 is None:
            return {"dist": "fixed", "value": round(mean)}
        return {"dist": "lognormal", "mean": mean, "p95": p95, "max": int(self.longest * part)}


def _seqs_key() -> str:
    return "deployment.engine.max_num_seqs"


def _said(line: str, comment: str) -> str:
    return f"{line.ljust(COLUMN)}  # {comment}".rstrip() if comment else line


def _flow(mapping: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{key}: {_yaml(value)}" for key, value in mapping.items()) + "}"


def _yaml(value: Any) -> str:
    """A plain value as YAML reads it: quoted where a bare word would be something else."""
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else repr(value)
    if isinstance(value, int):
        return str(value)
    plain = all(character.isalnum() or character in "-._/" for character in value)
    return value if (plain and value[:1].isalpha()) or (value[:3] == "../" and plain) else json.dumps(value)
