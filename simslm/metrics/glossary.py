"""The words of this field as everything here uses them, and the page ``docs/glossary.md`` that says so."""

from __future__ import annotations

from dataclasses import dataclass

from simslm.metrics.definitions import METRICS
from simslm.metrics.divided import DIVIDED
from simslm.metrics.metric import STATISTICS, Metric

OVER = (
    "A latency is taken over the requests that got that far; how many those are is in `population` (of ITL: gaps). "
    "With `metrics` in the scenario, `counted` says which requests and which time the figures are of, and "
    "`requests.parquet` has a column `counted`."
)

COMMAND = "simslm explain --markdown > docs/glossary.md"
"""What writes the page."""


@dataclass(frozen=True, slots=True)
class Term:
    """One word.

    Attributes:
        name: as it is written everywhere.
        definition: what it means.
        formula: how it is computed; empty where it is not a number.
        source: the paper that has it, or where it comes from; empty for a term in common use.
    """

    name: str
    definition: str
    formula: str = ""
    source: str = ""


TERMS = (
    Term("request", "a prompt, and the output tokens that answer it"),
    Term("prefill", "computing the KV cache of a prompt; its last iteration emits the first output token"),
    Term("decode", "computing one output token after another, each from the whole KV cache before it"),
    Term(
        "iteration",
        "one forward pass of one replica: some sequences decode a token each, some prompts are computed in part or "
        "whole",
        source="Yu et al., Orca, OSDI 2022",
    ),
    Term(
        "host time",
        "the part of an iteration in which no kernel of its replica runs or waits for the device: planning, launch "
        "gaps, reading tokens; the rest is device time, for which replicas on one device compete",
    ),
    Term(
        "launch gap",
        "time within an iteration in which the device has nothing to do until its host has launched the next kernel",
    ),
    Term(
        "replica",
        "one copy of a model with its own scheduler and KV cache; several may share a device",
    ),
    Term(
        "KV block",
        "block_size tokens of the KV cache, the unit in which memory is given to sequences",
        source="Kwon et al., PagedAttention, SOSP 2023",
    ),
    Term(
        "preemption",
        "a running sequence gives its KV blocks to others, and is prefilled again (recompute) or moved to the host "
        "(swap)",
    ),
    Term(
        "chunked prefill",
        "prompts are computed in pieces beside the decoding sequences, within one token budget",
        source="Agrawal et al., Sarathi-Serve, OSDI 2024",
    ),
    Term("token budget", "max_num_batched_tokens: the most tokens that one iteration computes"),
    Term(
        "prefix caching", "the KV blocks of finished prompts are kept, and shared by prompts that begin alike"
    ),
    Term(
        "program",
        "requests of which some wait for others: a conversation, an agent, a workflow; see docs/sessions.md",
    ),
    Term(
        "class",
        "a part of the traffic, as of a tenant, with its own lengths, arrivals or share of them, SLO and priority",
    ),
    Term(
        "warm-up and cool-down",
        "requests at the start and at the end of a run that its figures leave out (metrics in the scenario): latencies "
        "and SLO are of the requests that arrive in between, rates and energy of the time in between and of what "
        "finishes in it. Counts of requests, KV cache and coverage are of the whole run. steady: auto cuts the start "
        "by MSER-5",
        "the d that makes Σ (y_i − mean)² / (n − d)² of the batch means y_d … y_n least; refused beyond n / 2",
        "White, Simulation 69(6), 1997; Spratt, University of Virginia, 1998",
    ),
    Term(
        "SLO",
        "service-level objective: bounds on latencies, and the share of requests that must meet them all",
    ),
    Term(
        "residual",
        "of a calibration: its largest error of a run in throughput, TPOT or ITL; beyond 0.25 it writes no trace",
    ),
    Term(
        "trace", "a directory of measured, calibrated, imported or computed costs of one model on one device"
    ),
    Term(
        "measured domain",
        "the batches, contexts and prompts between those that a trace has measured",
    ),
    Term(
        "roofline",
        "the time of an iteration from its arithmetic and its memory traffic alone",
        "max(FLOPs / peak FLOP/s, bytes / bandwidth), each derated by an efficiency",
        "Williams et al., CACM 52(4), 2009",
    ),
    Term(
        "capacity",
        "the highest arrival rate at which the SLO is still met, by simulation in runs that are long enough to show an "
        "overload",
    ),
    Term(
        "miss",
        "a request that was rejected, failed or did not finish: where a configuration is chosen or compared its "
        "latency counts as infinite, so that the mean is, and every percentile that it reaches",
    ),
    Term(
        "frontier",
        "the points of a search that no other beats: surely better in one objective and surely worse in none, small "
        "differences aside (Pareto, with a margin)",
    ),
    Term(
        "hypervolume",
        "how much of the space of objectives the frontier dominates, above the reference point",
        source="Zitzler and Thiele, IEEE TEC 3(4), 1999",
    ),
    Term(
        "knee",
        "the smallest batch limit that brings nearly all of the throughput",
        "smallest B with T(B) ≥ 0.9 · max T, T(B) in total tokens/s at max_num_seqs B",
        "Recasens et al., EuroMLSys 2024",
    ),
    Term(
        "B_opt",
        "the batch limit that the Batching Configuration Advisor chooses",
        "largest B with T(B) / (B · T(1)) > ε and mean ITL(B) ≤ L · mean ITL(32); ε = 0.1",
        "Recasens et al., Mind the Memory Gap, 2025",
    ),
    Term(
        "memory freed",
        "device memory that a replica at B_opt leaves to others",
        "(1 − KV peak at B_opt) × KV bytes / device memory",
        "Recasens et al., Mind the Memory Gap, 2025",
    ),
    Term(
        "interval",
        "where a figure lies with 95 % confidence: of a run, as far as its costs are uncertain (cost error only) and, "
        "apart from that, as far as other requests of the same kind would change it; of a comparison or a search, as "
        "far as other requests would change it",
    ),
)
"""In the order in which one needs the other."""


def place(metric: Metric) -> str:
    """The place of a metric in ``summary.json``, all its statistics at once."""
    return f"{metric.key}.{{{','.join(STATISTICS)}}}" if metric.has_statistics else metric.key


def markdown() -> str:
    """The text of ``docs/glossary.md``."""
    lines = ["# Glossary", "", f"Written by `{COMMAND}`; `simslm explain METRIC` shows one of them.", ""]
    lines += [
        "## Figures",
        "",
        "Every number of `summary.json`, which holds seconds, joules and watts.",
        "",
        OVER,
        "",
    ]
    lines += ["| name | key | unit | definition | formula |", "|---|---|---|---|---|"]
    lines += [
        f"| {_cell(metric.name)} | `{place(metric)}` | {_cell(unit(metric))} | {_cell(metric.meaning)} | "
        f"{_code(metric.formula)} |"
        for metric in (*METRICS, *DIVIDED)
    ]
    lines += ["", *(f"**{each.name}.** {each.detail}" + "\n" for each in METRICS if each.detail)]
    lines += [
        "A run with programs has `programs`; a run with classes has `fairness`, and in `classes.NAME` the same figures "
        "of each class, as far as they are known by class. A run with a gateway has `gateway`, and one that states "
        "`group_router` has `group_routing`, with `requests`, `answered` and `escalated` of each group: see "
        "[gateway and groups](gateway.md). A run with `scaling`, `migration`, `faults` or `power` has `fleet`: see "
        "[replicas that come and go](fleet.md).",
    ]
    lines += ["", "## Words", "", "| word | meaning | formula | source |", "|---|---|---|---|"]
    lines += [
        f"| {_cell(term.name)} | {_cell(term.definition)} | {_code(term.formula)} | {_cell(term.source)} |"
        for term in TERMS
    ]
    return "\n".join(lines) + "\n"


def unit(metric: Metric) -> str:
    """The unit of the value in the file, in words."""
    return {"1": "share, 0 to 1", "": "number"}.get(metric.unit, metric.unit)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{text}`" if text else ""
