"""The roofline of the table's model and device, operator by operator, as a section of the report."""

from __future__ import annotations

from systems.claim import SCENARIOS

from simslm.api import load_scenario, prepare
from simslm.preparation.operators import Phase, device_roofline
from simslm.units import bytes_, flops, number, seconds

SCENARIO = SCENARIOS / "sarathi-serve.yaml"
BATCH, CONTEXT, PROMPT = 32, 2048, 2048


def roofline_section() -> str:
    """Each operator's work, intensity, bound and time in a prefill and in a decode iteration, in Markdown."""
    prepared = prepare(load_scenario(SCENARIO))
    (group,) = prepared.groups
    found = device_roofline(prepared, group, batch=BATCH, context=CONTEXT, prompt=PROMPT, attention="flash")
    return "\n".join(
        [
            "## 28 The roofline of the table's model and device\n",
            f"Operator by operator, after LLM-Viewer (arXiv:2402.16363): {group.architecture.name} on "
            f"{prepared.device.name}, which reaches {flops(found.flops_per_s)}/s and {bytes_(found.bytes_per_s)}/s. "
            f"Memory bounds operators of less than {number(found.ridge)} FLOP a byte, compute the others. The same for "
            f"any scenario, batch and length: `simslm roofline scenarios/systems/{SCENARIO.name} --batch {BATCH} "
            f"--context {CONTEXT} --prompt {PROMPT}`, and on the page of every run.\n",
            *map(_table, found.phases),
        ]
    )


def _table(phase: Phase) -> str:
    what = (
        f"a prompt of {phase.tokens:,} tokens"
        if phase.name == "prefill"
        else f"{phase.seqs} sequence{'s' * (phase.seqs > 1)} of {phase.tokens:,} tokens"
    )
    lines = [
        f"### {phase.name}: {what}, {seconds(phase.seconds)}\n",
        "| operator | calls | FLOP a call | bytes | FLOP/byte | bound | a call | share |",
        "| --- " * 8 + "|",
    ]
    for each in phase.operators:
        share = each.calls * each.seconds / phase.seconds
        lines.append(
            f"| {each.name} | {each.calls} | {flops(each.flops)} | {bytes_(each.bytes)} | {number(each.intensity)} | "
            f"{each.bound} | {seconds(each.seconds)} | {share:.1%} |"
        )
    return "\n".join(lines) + "\n"
