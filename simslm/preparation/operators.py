"""The operators of a served model under the roofline of its device, at the loads of a scenario."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from simslm.cost.operators import Attention, Operator, OperatorTable
from simslm.preparation.groups import PreparedGroup
from simslm.preparation.prepared import Prepared
from simslm.scenario.cost import Efficiency


@dataclass(frozen=True, slots=True)
class Phase:
    """An iteration, operator by operator.

    Attributes:
        name: ``prefill`` or ``decode``.
        seqs: prompts, or sequences that decode.
        tokens: of each prompt, or in the cache of each sequence.
        operators: in the order they run.
    """

    name: str
    seqs: int
    tokens: float
    operators: list[Operator]

    @property
    def seconds(self) -> float:
        """Seconds of the whole iteration on the device."""
        return sum(each.calls * each.seconds for each in self.operators)

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "name": self.name,
            "seqs": self.seqs,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "operators": [each.facts() for each in self.operators],
        }


@dataclass(frozen=True, slots=True)
class DeviceRoofline:
    """A model on one device; a tensor-parallel replica's operators are the undivided ones.

    Attributes:
        flops_per_s, bytes_per_s: what the device reaches: its peaks times the efficiency.
        efficiency: that of the scenario's roofline, or its default.
        attention: the account of attention, see :mod:`simslm.cost.operators`.
        phases: a prefill, and decoding by one sequence and by the full batch.
    """

    flops_per_s: float
    bytes_per_s: float
    efficiency: Efficiency
    attention: Attention
    phases: list[Phase]

    @property
    def ridge(self) -> float:
        """FLOP per byte above which arithmetic is the bound, and below which memory traffic is."""
        return self.flops_per_s / self.bytes_per_s

    def facts(self) -> dict[str, Any]:
        """As plain values, for files."""
        return {
            "flops_per_s": self.flops_per_s,
            "bytes_per_s": self.bytes_per_s,
            "efficiency": self.efficiency.model_dump(),
            "attention": self.attention,
            "phases": [each.facts() for each in self.phases],
        }


def device_roofline(
    prepared: Prepared,
    group: PreparedGroup,
    *,
    batch: int | None = None,
    context: int | None = None,
    prompt: int | None = None,
    attention: Attention = "flash",
) -> DeviceRoofline:
    """The operators of a group at stated loads, or at those of its requests.

    Args:
        prepared: the scenario.
        group: one of its groups.
        batch: sequences that decode; by default as many as slots, KV blocks and requests allow.
        context: tokens in the cache of each; by default the mean prompt and half of the mean output.
        prompt: tokens of the prompt; by default the mean.
        attention: its account.
    """
    scenario = prepared.scenario
    prompts, outputs = prepared.workload.mean_tokens
    held = context if context is not None else round(prompts + outputs / 2)
    batch = batch or group.batch(held, len(prepared.workload))
    held = group.held_tokens(held)
    spec = getattr(group.spec, "cost", None) or scenario.cost
    efficiency = spec.roofline.efficiency if spec.roofline else Efficiency()
    table = OperatorTable(
        group.architecture, prepared.device, scenario.dtype, efficiency, group.changes, attention
    )
    tokens = prompt or max(round(prompts), 1)
    phases = [Phase("prefill", 1, tokens, table.prefill(1, tokens, group.prompt_pairs(tokens)))]
    phases += [Phase("decode", seqs, held, table.decode(seqs, held)) for seqs in sorted({1, batch})]
    return DeviceRoofline(table.flops_per_s, table.bytes_per_s, efficiency, attention, phases)
