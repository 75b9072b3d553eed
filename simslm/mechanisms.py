"""What does not go together, and why: the one table that the parts of a replica and the scenario refer to.

Every pair stands here once, under either of its two names. A reason is one of nature, not of code: every pair that is
missing here works, and the combination tests try it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

MECHANISMS: Mapping[str, str] = {
    "roles": "prefill and decode replicas (role)",
    "bounded-kv": "a bounded KV cache (transform lm_infinite)",
    "speculation": "speculative decoding (speculative_config)",
    "urgency": "preemption of the less urgent (preemption_policy, priorities)",
    "swap": "swapping to the host (preemption: swap, swapping)",
    "turns": "finished turns on the host (swapping.turns)",
    "prefix-caching": "a prefix cache (prefix_caching)",
    "late-output": "outputs looked at late (disable_async_output_proc: false)",
    "reservation": "reserved blocks (batching static or orca)",
    "spare-block": "a free block for the last sequence (spare_block)",
    "held-batch": "batches held to their end (batching static)",
    "scaling": "replicas that start and stop (scaling)",
    "migration": "requests that move between replicas (migration)",
    "faults": "replicas that fail (faults)",
    "power": "clocks that change during the run (power)",
}
"""By name, what each is, and in parentheses the keys of a scenario that ask for it."""

CONTROL = ("scaling", "migration", "faults", "power")
"""Those of them that are orders of the control plane."""

EXCLUDES: Mapping[str, Mapping[str, str]] = {
    "roles": {
        "held-batch": "a held batch begins and ends as one; sequences that are handed over come one by one",
        "turns": "a turn ends on a decode replica and the next one begins on a prefill replica: the host memory of "
        "the one is not that of the other",
    },
    "bounded-kv": {
        "prefix-caching": "a sequence drops tokens of its prompt, which others could then not share",
    },
    "speculation": {
        "late-output": "how many drafted tokens are accepted must be known before the next iteration begins",
    },
    "urgency": {
        "held-batch": "a held batch lets no sequence join before its end, so making place serves none",
    },
    "migration": {
        "held-batch": "a held batch lets no sequence join before its end, so none can go on elsewhere",
    },
    "reservation": {
        "prefix-caching": "a reservation is one piece of memory, which cannot begin with the blocks of another",
        "spare-block": "a sequence that has all its blocks from the start asks for none",
    },
}
"""By name, the mechanisms that it does not go with, and why."""


def conflicts(asked: Collection[str]) -> list[tuple[str, str, str]]:
    """The pairs among ``asked`` that do not go together, each with the reason."""
    return [
        (one, other, why)
        for one, others in EXCLUDES.items()
        if one in asked
        for other, why in others.items()
        if other in asked
    ]


def table() -> str:
    """The pairs that do not go together as rows of Markdown, as they stand in ``docs/mechanisms.md``."""
    rows = [
        f"| {MECHANISMS[one]} | {MECHANISMS[other]} | {why} |"
        for one, others in EXCLUDES.items()
        for other, why in others.items()
    ]
    return "\n".join(("| this | does not go with | because |", "|---|---|---|", *rows))
