"""The figures of this field as everything here defines them: printed beside the numbers on every screen and page.

The glossary, ``simslm explain``, the directions of a comparison and the figures a search may name all come from here.
"""

from __future__ import annotations

from simslm.metrics.metric import Metric

APART = (
    "TTFT ends with the token of the prefill replica (DistServe, Splitwise), before the KV cache is copied. A proxy "
    "that passes on the tokens of decode replicas only (llm-d) shows the first one later, by that copy and one decode "
    "iteration: the first gap of ITL."
)
"""What TTFT is where prefill and decode run on different replicas."""

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
        has_statistics=True,
    ),
    Metric(
        "tpot_s",
        "TPOT",
        "(E2E − TTFT) / (output tokens − 1)",
        "time per output token",
        formula="(finish_s − first_token_s) / (output_tokens − 1)",
        over="finished requests with 2 output tokens or more",
        has_statistics=True,
    ),
    Metric(
        "itl_s",
        "ITL",
        "every gap between two output tokens of a request, pooled",
        "inter-token latency",
        formula="t[k + 1] − t[k] over all tokens k of all requests",
        over="requests that got 2 tokens or more",
        detail="The tokens of a request whose client left count, with the one that its replica was computing then.",
        has_statistics=True,
    ),
    Metric(
        "e2e_s",
        "E2E",
        "last output token’s time − arrival",
        "end to end",
        formula="finish_s − arrival_s",
        over="finished requests",
        has_statistics=True,
    ),
    Metric(
        "queue_s",
        "Queue",
        "first time scheduled − arrival",
        formula="first_scheduled_s − arrival_s",
        over="requests that were scheduled",
        has_statistics=True,
    ),
)
"""In the order in which they are shown."""

BY_KEY = {metric.key: metric for metric in LATENCIES}

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
    detail="Where replicas start and stop, devices are counted for as long as they are held: fleet.mean_devices.",
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
    "first arrival to the end of the last iteration, or of the last answer where a gateway or a verdict makes it later",
    formula="max(start_s + duration_s, finish_s) − min(arrival_s)",
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
        detail="Where replicas start and stop, a device idles only while it is held: while any of its replicas is "
        "anything but gone.",
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
        detail="Where replicas start, fail and stop, over the time in which each could serve.",
    ),
    Metric(
        "utilization.host_gap",
        "Host gap",
        "share of the makespan in which a replica's host worked and none of its kernels ran",
        unit="1",
        formula="Σ host_s / (makespan_s × replicas)",
        detail="Where replicas start, fail and stop, over the time in which each could serve.",
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
