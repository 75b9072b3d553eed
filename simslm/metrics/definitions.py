"""The figures of this field as everything here defines them: printed beside the numbers on every screen and page.

The glossary, ``simslm explain``, the directions of a comparison and the figures a search may name all come from here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from simslm.units import joules, number, seconds


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure.

    Attributes:
        key: in ``summary.json``.
        name: on screens.
        definition: how it is computed.
        words: the name written out; empty where it is already.
        unit: of the value in the file; ``1`` for a share, from 0 to 1.
        better: ``less``, ``more``, or empty where neither is.
        formula: of one run, in the columns of ``requests.parquet`` and ``iterations.parquet``.
        over: the requests it is taken over; empty where it is not taken over requests.
        detail: what else there is to know, for :mod:`glossary` and ``simslm explain``.
    """

    key: str
    name: str
    definition: str
    words: str = ""
    unit: str = "s"
    better: str = "less"
    formula: str = ""
    over: str = ""
    detail: str = ""

    @property
    def stated(self) -> str:
        """The definition, with the requests that it is taken over."""
        return f"{self.definition}; over {self.over}" if self.over else self.definition

    @property
    def meaning(self) -> str:
        """What a reader who does not know the name needs."""
        return f"{self.words}: {self.stated}" if self.words else self.stated

    @property
    def windowed(self) -> bool:
        """Whether ``metrics`` in a scenario leaves requests, or time, out of it."""
        return self.key.startswith(WINDOWED)

    @property
    def has_statistics(self) -> bool:
        """Whether it is a distribution, of which a summary has :data:`STATISTICS`."""
        return self.key in BY_KEY or self in PROGRAM_TIMES

    def show(self, value: float | None) -> str:
        """A value for a screen, with its unit."""
        if value is None:
            return "–"
        if self.unit == "s":
            return seconds(value)
        if self.unit == "J":
            return joules(value)
        if self.unit == "1":
            return f"{number(100 * value)} %"
        if self.unit == "USD":
            return f"${number(value)}"
        return f"{number(value)} {self.unit}".rstrip()


WINDOWED = (
    "throughput",
    "ttft_s",
    "tpot_s",
    "itl_s",
    "e2e_s",
    "queue_s",
    "slo",
    "energy",
    "utilization",
    "economics",
)
"""Sections of a summary that are of the requests, or the time, that count; counts, KV cache and coverage are of all."""

APART = (
    "TTFT ends with the token of the prefill replica (DistServe, Splitwise), before the KV cache is copied. A proxy "
    "that passes on the tokens of decode replicas only (llm-d) shows the first one later, by that copy and one decode "
    "iteration: the first gap of ITL."
)
"""Where prefill and decode run on different replicas."""

LATENCIES = (
    Metric(
        "ttft_s",
        "TTFT",
        "first output token’s time − arrival",
        "time to first token",
        formula="first_token_s − arrival_s",
        over="requests that got a first token",
        detail="A token that comes after its client has left does not count. Where prefill and decode run on different "
        f"replicas, {APART}",
    ),
    Metric(
        "tpot_s",
        "TPOT",
        "(E2E − TTFT) / (output tokens − 1)",
        "time per output token",
        formula="(finish_s − first_token_s) / (output_tokens − 1)",
        over="finished requests with 2 output tokens or more",
    ),
    Metric(
        "itl_s",
        "ITL",
        "every gap between two output tokens of a request, pooled",
        "inter-token latency",
        formula="t[k + 1] − t[k] over all tokens k of all requests",
        over="requests that got 2 tokens or more",
        detail="The tokens of a request whose client left count, with the one that its replica was computing then.",
    ),
    Metric(
        "e2e_s",
        "E2E",
        "last output token’s time − arrival",
        "end to end",
        formula="finish_s − arrival_s",
        over="finished requests",
    ),
    Metric(
        "queue_s",
        "Queue",
        "first time scheduled − arrival",
        formula="first_scheduled_s − arrival_s",
        over="requests that were scheduled",
    ),
)
"""In the order in which they are shown."""

BY_KEY = {metric.key: metric for metric in LATENCIES}
STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")

ATTAINMENT = Metric(
    "slo.attainment",
    "SLO attainment",
    "share of arrived requests that met every stated bound",
    unit="1",
    better="more",
    formula="requests that finished within every bound of slo / arrived requests",
    detail="Rejected, failed and unfinished requests are misses.",
)
GOODPUT = Metric(
    "slo.goodput_rps",
    "Goodput",
    "requests that met every stated bound, per second",
    unit="requests/s",
    better="more",
    formula="requests that finished within every bound of slo / makespan_s",
)
ENERGY = Metric(
    "energy.total_j",
    "Energy",
    "integral of device power over the makespan, idle included",
    unit="J",
    formula="Σ power_w × duration_s over iterations + idle power × idle time",
)
COST = Metric(
    "economics.usd_per_million_output_tokens",
    "Cost",
    "devices by the hour over the makespan, idle included, and electricity where it is paid beside them, for a "
    "million output tokens",
    unit="USD",
    formula="(devices × usd_per_device_hour / 3600 + usd_per_kwh × mean_power_w / 3.6e6) "
    "/ output_tokens_per_s × 1e6",
)
CARBON = Metric(
    "economics.g_co2_per_million_output_tokens",
    "Carbon",
    "energy × what its electricity emits, for a million output tokens",
    unit="g CO2",
    formula="g_co2_per_kwh × mean_power_w / 3.6e6 / output_tokens_per_s × 1e6",
)

REQUESTS = (
    Metric("requests.arrived", "Arrived", "requests that arrived", unit="requests", better=""),
    Metric(
        "requests.finished",
        "Finished",
        "requests that got their last token",
        unit="requests",
        better="more",
    ),
    Metric(
        "requests.rejected",
        "Rejected",
        "requests that can never fit, or that admission turned away",
        unit="requests",
    ),
    Metric("requests.failed", "Failed", "requests whose client left before the last token", unit="requests"),
    Metric(
        "requests.unfinished",
        "Unfinished",
        "requests still under way when the run was stopped",
        unit="requests",
    ),
)
MAKESPAN = Metric(
    "makespan_s",
    "Makespan",
    "first arrival to the end of the last iteration",
    formula="max(start_s + duration_s) − min(arrival_s)",
)
THROUGHPUT = tuple(
    Metric(
        f"throughput.{key}",
        f"{name} throughput",
        f"{of} per second of the makespan",
        unit=unit,
        better="more",
        formula=f"{counted} / makespan_s",
    )
    for key, name, of, unit, counted in (
        ("requests_per_s", "Request", "finished requests", "requests/s", "finished requests"),
        (
            "output_tokens_per_s",
            "Output token",
            "output tokens of finished requests",
            "tokens/s",
            "Σ output_tokens of finished requests",
        ),
        (
            "total_tokens_per_s",
            "Total token",
            "prompt and output tokens of finished requests",
            "tokens/s",
            "Σ (prompt_tokens + output_tokens) of finished requests",
        ),
    )
)
TOKEN_GOODPUT = Metric(
    "slo.goodput_output_tokens_per_s",
    "Token goodput",
    "output tokens of requests that met every stated bound, per second",
    unit="tokens/s",
    better="more",
    formula="Σ output_tokens of requests that finished within every bound of slo / makespan_s",
)
POWER = (
    Metric(
        "energy.prefill_j",
        "Prefill energy",
        "the part of the energy that prompts are charged with",
        unit="J",
        formula="Σ energy of iterations × share of prefill; a mixed iteration is divided as its two kinds would take "
        "alone",
    ),
    Metric(
        "energy.decode_j",
        "Decode energy",
        "the part of the energy that decoding is charged with",
        unit="J",
        formula="Σ energy of iterations − prefill_j",
    ),
    Metric(
        "energy.idle_j",
        "Idle energy",
        "what the devices use while no iteration runs",
        unit="J",
        formula="idle power × (makespan_s − busy time), over all devices",
    ),
    Metric(
        "energy.mean_power_w",
        "Mean power",
        "energy over the makespan, of all devices together",
        unit="W",
        formula="total_j / makespan_s",
    ),
    Metric(
        "energy.j_per_output_token",
        "Energy per output token",
        "all energy, idle included, for an output token of a finished request",
        unit="J",
        formula="total_j / Σ output_tokens of finished requests",
    ),
    Metric(
        "energy.j_per_total_token",
        "Energy per total token",
        "all energy, idle included, for a prompt or output token of a finished request",
        unit="J",
        formula="total_j / Σ (prompt_tokens + output_tokens) of finished requests",
    ),
)
KV = (
    Metric(
        "kv.num_gpu_blocks",
        "KV blocks",
        "blocks of the KV cache of one replica, of the first group where there are several",
        unit="blocks",
        better="",
        formula="(memory × gpu_memory_utilization / replicas_per_device − weights − activations) / bytes of a block",
    ),
    Metric(
        "kv.peak_utilization",
        "KV peak",
        "most of the KV blocks that any replica held at once, as a share of them",
        unit="1",
        better="",
        formula="max(kv_blocks_used) / num_gpu_blocks",
    ),
    Metric(
        "kv.preemptions",
        "Preemptions",
        "how often a running request gave its KV blocks to another",
        unit="",
        formula="Σ preemptions",
    ),
    Metric(
        "kv.recomputed_tokens",
        "Recomputed tokens",
        "tokens computed again because their request had been preempted",
        unit="tokens",
        formula="Σ recomputed_tokens",
    ),
    Metric(
        "kv.recomputed_share",
        "Recomputed share",
        "share of all computed tokens that had been computed before; a run with more than 0.2, or more than one "
        "preemption for each finished request, is called a preemption storm in `kv.note`",
        unit="1",
        formula="recomputed_tokens / (recomputed_tokens + Σ (prompt_tokens − cached_prompt_tokens + output_tokens) of "
        "finished requests)",
    ),
    Metric(
        "kv.cached_prompt_share",
        "Cached prompt share",
        "share of the prompt tokens of finished requests that the prefix cache held",
        unit="1",
        better="more",
        formula="Σ cached_prompt_tokens / Σ prompt_tokens of finished requests",
    ),
)
UTILIZATION = (
    Metric(
        "utilization.busy",
        "Busy",
        "share of the makespan in which a replica ran iterations, on average over replicas",
        unit="1",
        better="",
        formula="Σ duration_s / (makespan_s × replicas)",
    ),
    Metric(
        "utilization.host_gap",
        "Host gap",
        "share of the makespan in which a replica's host worked and none of its kernels ran",
        unit="1",
        formula="Σ host_s / (makespan_s × replicas)",
    ),
)
COVERAGE = Metric(
    "coverage.in_domain_time",
    "Coverage",
    "share of busy time whose cost lies inside what was measured; the rest is extrapolated with the roofline",
    unit="1",
    better="more",
    formula="Σ duration_s of iterations inside the domain / Σ duration_s",
)
COST_OF_TOTAL = Metric(
    "economics.usd_per_million_total_tokens",
    "Cost per total token",
    "the same cost, for a million prompt and output tokens",
    unit="USD",
    formula="(devices × usd_per_device_hour / 3600 + usd_per_kwh × mean_power_w / 3.6e6) "
    "/ total_tokens_per_s × 1e6",
)

METRICS = (
    *REQUESTS,
    MAKESPAN,
    *THROUGHPUT,
    *LATENCIES,
    ATTAINMENT,
    GOODPUT,
    TOKEN_GOODPUT,
    ENERGY,
    *POWER,
    *KV,
    *UTILIZATION,
    COVERAGE,
    COST,
    COST_OF_TOTAL,
    CARBON,
)
"""Every figure of ``summary.json``, in its order."""


PROGRAM_TIMES = (
    Metric(
        "programs.jct_s",
        "JCT",
        "last output token of a program’s last request − arrival of its first, of programs that finished",
        "job completion time",
        formula="max(finish_s) − min(arrival_s) over the requests of a program",
    ),
    Metric(
        "programs.active_s",
        "Active time",
        "of the JCT, the time in which at least one of the program’s requests is in the system; the rest is think "
        "and tool time",
        formula="length of the union of [arrival_s, finish_s] over the requests of a program",
    ),
)
PROGRAMS = (
    Metric(
        "programs.arrived",
        "Programs",
        "programs (conversations, agents, workflows) of which a request arrived",
        unit="programs",
        better="",
    ),
    Metric(
        "programs.finished",
        "Finished programs",
        "programs of which every request got its last token",
        unit="programs",
        better="more",
    ),
    Metric(
        "programs.failed",
        "Failed programs",
        "programs of which a request was rejected or left by its client",
        unit="programs",
    ),
    Metric(
        "programs.unfinished",
        "Unfinished programs",
        "programs still under way when the run was stopped",
        unit="programs",
    ),
    Metric(
        "programs.requests_not_sent",
        "Requests never sent",
        "requests of those programs that never arrived, because one they depend on did not finish",
        unit="requests",
    ),
    *PROGRAM_TIMES,
)
"""Of runs with programs."""

SERVICE = Metric(
    "service_tokens_per_s",
    "Service rate",
    "output tokens per second that the requests of a class get while they are in the system: the inverse of the "
    "normalized latency of Orca and vLLM",
    unit="tokens/s",
    better="more",
    formula="Σ output_tokens / Σ e2e_s over the finished requests of a class",
)
FAIRNESS = (
    Metric(
        "fairness.jain",
        "Jain’s index",
        "how equal the service rates of classes are: 1 = all the same, 1 / classes = one has everything",
        unit="",
        better="more",
        formula="(Σ x)² / (n Σ x²), x: service_tokens_per_s of each of n classes (Jain, Chiu and Hawe 1984)",
    ),
    Metric(
        "fairness.min_attainment",
        "Lowest attainment",
        "SLO attainment of the class that has the lowest",
        unit="1",
        better="more",
        formula="min of slo.attainment over classes",
    ),
    Metric(
        "fairness.attainment_gap",
        "Attainment gap",
        "highest − lowest SLO attainment of a class",
        unit="1",
        formula="max − min of slo.attainment over classes",
    ),
)
"""Of runs with classes."""

BY_CLASS_KV = ("kv.preemptions", "kv.recomputed_tokens", "kv.recomputed_share", "kv.cached_prompt_share")

BY_CLASS = (
    *REQUESTS,
    *THROUGHPUT,
    *(metric for metric in LATENCIES if metric.key != "itl_s"),
    ATTAINMENT,
    GOODPUT,
    TOKEN_GOODPUT,
    *(metric for metric in KV if metric.key in BY_CLASS_KV),
    SERVICE,
)
"""What a summary has of each class, in ``classes.NAME``; token gaps are not known by class."""

DIVIDED = (*PROGRAMS, SERVICE, *FAIRNESS)
"""Figures that only runs with programs or classes have."""


def paths(metric: Metric) -> tuple[str, ...]:
    """The dotted paths of a metric's numbers in a summary."""
    if metric.has_statistics:
        return tuple(f"{metric.key}.{statistic}" for statistic in STATISTICS)
    return (metric.key,)


OF_PATH = {path: metric for metric in METRICS for path in paths(metric)}
"""The metric of every number of a summary, by the number's dotted path."""

FIGURES = tuple(OF_PATH)
"""Every number of a summary, by its dotted path."""


_OF_DIVIDED = {path: metric for metric in (*PROGRAMS, *FAIRNESS) for path in paths(metric)}
_OF_CLASS = {path: metric for metric in (*BY_CLASS, *PROGRAMS) for path in paths(metric)}


def figures_of(classes: Iterable[str], programs: bool) -> tuple[str, ...]:
    """Every number of the summary of a scenario, by its dotted path.

    Args:
        classes: names of its classes, perhaps none.
        programs: whether any of them, or all of it, has programs.
    """
    of_programs = [path for metric in PROGRAMS for path in paths(metric)] if programs else []
    names = tuple(classes)
    of_class = [*(path for metric in BY_CLASS for path in paths(metric)), *of_programs]
    fairness = [path for metric in FAIRNESS for path in paths(metric)] if names else []
    return (
        *FIGURES,
        *of_programs,
        *(f"classes.{name}.{path}" for name in names for path in of_class),
        *fairness,
    )


def metric_of(path: str) -> Metric | None:
    """The metric of a number by its dotted path, also of a class; None where there is no such number."""
    if path.startswith("classes."):
        return _OF_CLASS.get(path.split(".", 2)[-1])
    return OF_PATH.get(path) or _OF_DIVIDED.get(path)


def title(path: str) -> str:
    """The name of a number on screens: ``TTFT p99``, ``TTFT p99 of chat``."""
    metric = metric_of(path)
    if metric is None:
        raise KeyError(path)
    name = f"{metric.name} {path.rpartition('.')[2]}" if metric.has_statistics else metric.name
    return f"{name} of {path.split('.')[1]}" if path.startswith("classes.") else name
