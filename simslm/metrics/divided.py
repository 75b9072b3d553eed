"""The figures that only some runs have (with programs, classes, a gateway, a choice of groups, a control plane), and
what a summary says of each class."""

from __future__ import annotations

from simslm.metrics.definitions import ATTAINMENT, GOODPUT, KV, LATENCIES, REQUESTS, THROUGHPUT, TOKEN_GOODPUT
from simslm.metrics.metric import Metric

PROGRAM_TIMES = (
    Metric(
        "programs.jct_s",
        "JCT",
        "last output token of a program’s last request − arrival of its first, of programs that finished",
        "job completion time",
        formula="max(finish_s) − min(arrival_s) over the requests of a program",
        has_statistics=True,
    ),
    Metric(
        "programs.active_s",
        "Active time",
        "of the JCT, the time in which at least one of the program’s requests is in the system; the rest is think "
        "and tool time",
        formula="length of the union of [arrival_s, finish_s] over the requests of a program",
        has_statistics=True,
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
"""Figures of runs with programs."""

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
"""Figures of runs with classes."""

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

GATEWAY = (
    Metric(
        "gateway.answered",
        "Answered by the gateway",
        "requests that the gateway answered, which no replica served",
        unit="requests",
        better="more",
        formula="finished requests without a replica",
    ),
    Metric(
        "gateway.answered_share",
        "Share answered by the gateway",
        "requests that the gateway answered, as a share of those that arrived",
        unit="1",
        better="more",
        formula="gateway.answered / requests.arrived",
    ),
)
"""Of runs with a gateway."""

GROUP_ROUTING = (
    Metric(
        "group_routing.escalations",
        "Escalations",
        "answers that were not accepted, so that another group served their requests anew",
        unit="requests",
        formula="Σ escalations",
    ),
)
"""Of runs in which a policy is stated that chooses among groups."""

FLEET = (
    Metric(
        "fleet.mean_replicas",
        "Replicas",
        "replicas that could serve (serving or draining), on average over the makespan",
        unit="replicas",
        formula="Σ time in which each served or drained / makespan_s",
    ),
    Metric(
        "fleet.most_replicas",
        "Most replicas",
        "replicas that could serve at once, at most",
        unit="replicas",
        formula="the most lifetimes serving or draining that overlap",
    ),
    Metric(
        "fleet.mean_devices",
        "Devices held",
        "devices of which a replica was anything but gone, on average over the makespan",
        unit="devices",
        formula="Σ time in which each device was held / makespan_s",
    ),
    *(
        Metric(
            f"fleet.{key}",
            name,
            definition,
            unit="times",
            better=better,
            formula=f"lifetimes that are {state}",
        )
        for key, name, definition, better, state in (
            ("starts", "Starts", "orders to start or wake a replica", "", "starting"),
            ("drains", "Drains", "orders to drain a replica", "", "draining"),
            ("sleeps", "Sleeps", "drained replicas that fell asleep", "", "asleep"),
            ("failures", "Faults", "replicas that failed", "less", "failed"),
        )
    ),
    *(
        Metric(
            f"fleet.{key}", name, definition, unit="times", better=better, formula=f"moves of the kind {kind}"
        )
        for key, name, definition, better, kind in (
            (
                "migrations",
                "Migrations",
                "requests moved to another replica as a policy says",
                "",
                "migration",
            ),
            (
                "recomputed",
                "Lost their replica",
                "times a request that waited or ran lost its replica, and went on",
                "less",
                "failure",
            ),
            (
                "held",
                "Waited for a replica",
                "times a request waited because no replica served",
                "less",
                "held",
            ),
        )
    ),
    Metric(
        "fleet.lost_work",
        "Lost what was computed",
        "times a fault took what a request had computed; each counts as a preemption",
        unit="times",
        better="less",
        formula="requests with tokens in the KV cache of a replica that failed",
    ),
    Metric(
        "fleet.killed",
        "Failed with their replicas",
        "requests that failed because their replica did",
        unit="requests",
        better="less",
        formula="failed requests whose client had not left",
    ),
)
"""Of runs under a control plane."""

CLOCKS = (
    Metric(
        "fleet.clock_changes",
        "Clock changes",
        "times at which the devices changed their clock",
        unit="times",
        better="",
        formula="rows of clocks.parquet − 1",
    ),
    Metric(
        "fleet.mean_clock_mhz",
        "Mean clock",
        "clock of the devices, on average over the makespan",
        unit="MHz",
        better="",
        formula="Σ clock × time at it / makespan_s",
    ),
)
"""Of runs in which clocks change."""

DIVIDED = (*PROGRAMS, SERVICE, *FAIRNESS, *GATEWAY, *GROUP_ROUTING, *FLEET, *CLOCKS)
"""Figures that only some runs have."""
