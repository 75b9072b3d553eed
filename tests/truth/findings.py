"""The findings of Recasens et al. as figures: measured by them, simulated by us, from any set of compared runs.

Sources: "Towards Pareto Optimal Throughput in Small Language Model Serving" (EuroMLSys 2024, arXiv:2404.03353) and
"Mind the Memory Gap" (2025, arXiv:2503.08311). Without a table of measured runs the measured figures are unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from truth.rows import Row, between, near

from simslm.catalog.devices import load_device
from simslm.catalog.models import load_model
from simslm.fidelity.comparison import Comparison
from simslm.runs.derived import (
    MEMORY_EPSILON,
    REFERENCE_BATCH,
    Curve,
    Metrics,
    best_batch,
    curves,
    joules_per_output_token,
    knee,
    memory_freed,
    throughput,
)

BLOCK_SIZE = 16
DTYPE = "fp16"
LATENCY_FACTOR = 3.0
"""L of the advice whose freed memory the paper prints."""

REPLICATED_BATCHES = (96, 128, 256)
OUTPUT_TOKENS = (130, 260, 390, 520)
MEASURED_MODELS = ("opt-2.7b", "llama-2-7b")
GAIN = (0.04, 0.17)
"""What two replicas at batch 128 may gain over one at batch 384."""

NEAR = 0.05
"""How far the freed memory may be off, as a share of the device's memory."""

PUBLISHED_OUTPUT_TOKENS = 390
PUBLISHED_FREED = {"opt-2.7b": 0.4505, "llama-2-7b": 0.1051}
"""Memory freed at 390 output tokens and L = 3 as the paper prints it."""

PUBLISHED_GAIN = {"opt-1.3b": 0.338, "opt-2.7b": 0.128}
"""Gain of two replicas (2 x 256 over 1 x 768, 2 x 128 over 1 x 384) as the paper prints it."""


@dataclass(frozen=True)
class Evidence:
    """All that the findings are drawn from.

    Attributes:
        recorded: runs of the table as they were run; none without a table.
        posed: points of the scenarios.
    """

    recorded: Sequence[Comparison]
    posed: Sequence[Comparison]


@dataclass(frozen=True)
class Pair:
    """The curve of one setting, as measured (empty without a table) and as simulated.

    Attributes:
        measured, simulated: by batch limit.
        blocks: KV blocks of a replica by batch limit.
    """

    measured: Curve
    simulated: Curve
    blocks: Mapping[int, int]

    def both(self, figure: Callable[[Curve], float | None]) -> tuple[float | None, float | None]:
        """A figure of either curve; None of one that is empty."""
        measured = figure(self.measured) if self.measured else None
        return measured, figure(self.simulated) if self.simulated else None


def chosen(comparisons: Iterable[Comparison], **what: Any) -> list[Comparison]:
    """Those whose run has the attributes."""
    return [
        each for each in comparisons if all(getattr(each.run, name) == value for name, value in what.items())
    ]


def pair(evidence: Evidence, **what: Any) -> Pair:
    """The curve of a setting from the table where it has it, else from the scenarios."""
    recorded = chosen(evidence.recorded, **what)
    found = recorded or chosen(evidence.posed, **what)
    blocks = {each.run.max_num_seqs: each.run.num_gpu_blocks or 0 for each in found}
    return Pair(_curve(recorded, measured), _curve(found, simulated), blocks)


def _curve(comparisons: Sequence[Comparison], figures: Callable[[Comparison], Metrics]) -> Curve:
    by_run = {each.run.run: figures(each) for each in comparisons}
    found = curves([each.run for each in comparisons], lambda run: by_run[run.run])
    if len(found) > 1:
        raise ValueError(f"{len(found)} settings are no curve: {[each.run.run for each in comparisons]}")
    return next(iter(found.values()), {})


def measured(comparison: Comparison) -> Metrics:
    return comparison.run.measured


def simulated(comparison: Comparison) -> Metrics:
    return comparison.simulated


def sweep(evidence: Evidence, model: str, output_tokens: float = 260) -> Pair:
    """The curve of fixed lengths that the first four findings look at."""
    return pair(evidence, model=model, workload="fixed", output_tokens=output_tokens, replicas=1)


# ---- figures of a curve --------------------------------------------------------------------------------------


def largest(curve: Curve) -> int:
    return max(curve)


def at_knee(figure: str) -> Callable[[Curve], float | None]:
    def found(curve: Curve) -> float | None:
        batch = knee(curve)
        return None if batch is None else curve[batch].get(figure)

    return found


def of_best(batch: int) -> Callable[[Curve], float | None]:
    """Total throughput at a batch limit as a share of the best."""

    def found(curve: Curve) -> float | None:
        rates = throughput(curve)
        return rates[batch] / max(rates.values()) if batch in rates else None

    return found


def factor(figure: str, batch: int) -> Callable[[Curve], float | None]:
    """A figure at a batch as a multiple of that at the reference batch."""

    def found(curve: Curve) -> float | None:
        if not {batch, REFERENCE_BATCH} <= curve.keys():
            return None
        return curve[batch][figure] / curve[REFERENCE_BATCH][figure]

    return found


def joules_at(batch: int) -> Callable[[Curve], float | None]:
    return lambda curve: joules_per_output_token(curve[batch]) if batch in curve else None


def joules_beyond_knee(curve: Curve) -> float | None:
    """Energy per token at the largest batch over that at the knee, less 1."""
    batch = knee(curve)
    ends = [] if batch is None else [joules_per_output_token(curve[each]) for each in (batch, largest(curve))]
    if len(ends) < 2 or ends[0] is None or ends[1] is None:
        return None
    return ends[1] / ends[0] - 1


def sm_idle(batch: int) -> Callable[[Curve], float | None]:
    """Share of a second in which no kernel runs."""
    return lambda curve: (
        1 - curve[batch]["sm_busy_pct"] / 100 if "sm_busy_pct" in curve.get(batch, {}) else None
    )


def advised(curve: Curve) -> int | None:
    """B_opt of the freed memory, by mean TPOT."""
    return best_batch(curve, MEMORY_EPSILON, LATENCY_FACTOR, "tpot_mean_s")


def freed(model: str, device: str, blocks: Mapping[int, int]) -> Callable[[Curve], float | None]:
    """Share of the device's memory that the KV cache does not need at B_opt."""

    def found(curve: Curve) -> float | None:
        batch = advised(curve)
        if batch is None:
            return None
        kv_bytes = blocks[batch] * BLOCK_SIZE * load_model(model).kv_bytes_per_token(DTYPE)
        return memory_freed(curve, LATENCY_FACTOR, kv_bytes, load_device(device).memory_bytes)

    return found


# ---- the findings ---------------------------------------------------------------------------------------------


def plateau(evidence: Evidence) -> list[Row]:
    rows = []
    for model in MEASURED_MODELS:
        curve = sweep(evidence, model)
        rows += [
            Row(f"{model}: knee, max_num_seqs", "batch", *curve.both(knee)),
            Row(f"{model}: KV cache used at the knee, peak", "share", *curve.both(at_knee("kv_peak"))),
            *(
                Row(f"{model}: T({batch}) of the best", "share", *curve.both(of_best(batch)))
                for batch in (64, 128, 256)
            ),
        ]
    return rows


def latency(evidence: Evidence, batch: int = 256) -> list[Row]:
    rows = []
    for model in MEASURED_MODELS:
        curve = sweep(evidence, model)
        words = f"batch {batch} over {REFERENCE_BATCH}"
        rows += [
            Row(
                f"{model}: total tokens/s, {words}",
                "factor",
                *curve.both(factor("total_tokens_per_s", batch)),
            ),
            Row(f"{model}: mean ITL, {words}", "factor", *curve.both(factor("itl_mean_s", batch))),
        ]
    return rows


def energy(evidence: Evidence) -> list[Row]:
    rows = []
    for model in MEASURED_MODELS:
        curve = sweep(evidence, model)
        rows += [
            Row(f"{model}: J per output token, batch {batch}", "joules", *curve.both(joules_at(batch)))
            for batch in (1, 32, 128, 256)
        ]
        rows.append(
            Row(f"{model}: from the knee to the largest batch", "gain", *curve.both(joules_beyond_knee))
        )
    return rows


def gaps(evidence: Evidence) -> list[Row]:
    rows = []
    for model in MEASURED_MODELS:
        curve = sweep(evidence, model)
        rows += [
            Row(f"{model}: SM idle, batch {batch}", "share", *curve.both(sm_idle(batch)))
            for batch in (1, 32, 128, 256)
        ]
        mine = _curve(chosen(evidence.posed, model=model, workload="fixed", output_tokens=260), simulated)
        gap = mine.get(256, {}).get("host_gap")
        rows.append(Row(f"{model}: host gap in the simulated run, batch 256", "share", None, gap))
    return rows


def replicas(evidence: Evidence) -> list[Row]:
    """Two and four replicas over one of the same batch, over batch 384, and over the best single one."""
    chats = {"model": "opt-2.7b", "workload": "sharegpt", "batching": "prefill-first"}
    one, two, four = (pair(evidence, **chats, replicas=count) for count in (1, 2, 4))
    scenario = Evidence((), evidence.posed)
    posed_one, posed_four = (pair(scenario, **chats, replicas=count) for count in (1, 4))
    rows = [
        Row(
            f"2 × {batch} over 1 × {batch}",
            "gain",
            _gain(two.measured, one.measured, batch),
            _gain(two.simulated, one.simulated, batch),
        )
        for batch in REPLICATED_BATCHES
    ]
    rows += [
        Row(
            f"4 × {batch} over 1 × {batch} (scenario)",
            "gain",
            _gain(four.measured, one.measured, batch),
            _gain(posed_four.simulated, posed_one.simulated, batch),
        )
        for batch in REPLICATED_BATCHES
    ]
    rows += headline(evidence.recorded or evidence.posed)
    mine = evidence.recorded or evidence.posed
    for name, kind, figure in (
        ("output tokens/s", "rate", output_tokens_per_s),
        ("J per output token", "joules", joules_per_output_token),
    ):
        for count, batch in ((2, 128), (1, 384)):
            rows.append(Row(f"{name}, {count} × {batch}", kind, *_at(mine, figure, count, batch)))
    return rows


def headline(comparisons: Sequence[Comparison]) -> list[Row]:
    """Two replicas at batch 128 over each run of one at 384, then over the best single replica there is."""
    mine = chosen(comparisons, model="opt-2.7b", workload="sharegpt")
    twos = chosen(mine, replicas=2, batching="prefill-first", max_num_seqs=128)
    ones = chosen(mine, replicas=1, batching="prefill-first", max_num_seqs=384)
    rows = []
    for index, one in enumerate(ones, start=1):
        measured_gain, simulated_gain = (_rate_gain(twos[0], one, who) for who in (measured, simulated))
        last = index == len(ones)
        rows.append(
            Row(
                "2 × 128 over 1 × 384" + (f", repeat {index}" if len(ones) > 1 else ""),
                "gain",
                measured_gain,
                simulated_gain,
                PUBLISHED_GAIN["opt-2.7b"] if last else None,
                between(*GAIN),
            )
        )
    singles = chosen(mine, replicas=1)
    for batch in (128, 256):
        pair_of = chosen(mine, replicas=2, batching="prefill-first", max_num_seqs=batch)
        gains = [_over_best(pair_of, singles, who) for who in (measured, simulated)]
        rows.append(Row(f"2 × {batch} over the best single replica", "gain", *gains))
    return rows


def _at(
    comparisons: Sequence[Comparison], figure: Callable[[Metrics], float | None], replicas: int, batch: int
) -> tuple[float | None, float | None]:
    """Measured and simulated; of repeats the last one, as the paper's figure has it."""
    what = {"model": "opt-2.7b", "workload": "sharegpt", "batching": "prefill-first"}
    mine = chosen(comparisons, **what, replicas=replicas, max_num_seqs=batch)
    return (figure(measured(mine[-1])), figure(simulated(mine[-1]))) if mine else (None, None)


def output_tokens_per_s(metrics: Metrics) -> float | None:
    return metrics.get("output_tokens_per_s")


def _rate_gain(many: Comparison, one: Comparison, who: Callable[[Comparison], Metrics]) -> float | None:
    high, low = output_tokens_per_s(who(many)), output_tokens_per_s(who(one))
    return None if high is None or low is None else high / low - 1


def _over_best(
    many: Sequence[Comparison], singles: Sequence[Comparison], who: Callable[[Comparison], Metrics]
) -> float | None:
    rates = [rate for each in singles if (rate := output_tokens_per_s(who(each))) is not None]
    mine = output_tokens_per_s(who(many[0])) if many else None
    return mine / max(rates) - 1 if rates and mine is not None else None


def _gain(many: Curve, one: Curve, batch: int) -> float | None:
    if batch not in many or batch not in one:
        return None
    return many[batch]["output_tokens_per_s"] / one[batch]["output_tokens_per_s"] - 1


def family_gains(evidence: Evidence, models: Sequence[str]) -> list[Row]:
    """The gain that the paper prints for OPT-1.3B, and the best of two and of four replicas over the best single one:
    all from the scenarios."""
    chats = {"model": "opt-1.3b", "workload": "sharegpt"}
    many, one = (
        chosen(evidence.posed, **chats, replicas=count, max_num_seqs=batch)
        for count, batch in ((2, 256), (1, 768))
    )
    gain = _rate_gain(many[0], one[0], simulated) if many and one else None
    rows = [Row("opt-1.3b: 2 × 256 over 1 × 768", "gain", None, gain, PUBLISHED_GAIN["opt-1.3b"])]
    for model in models:
        best = {count: _best_posed(evidence, model, count) for count in (1, 2, 4)}
        for count in (2, 4):
            gain = best[count] / best[1] - 1 if best[count] and best[1] else None
            rows.append(Row(f"{model}: best of {count} replicas over the best single", "gain", None, gain))
    return rows


def _best_posed(evidence: Evidence, model: str, replicas: int) -> float | None:
    mine = chosen(evidence.posed, model=model, workload="sharegpt", replicas=replicas)
    return max((each.simulated["output_tokens_per_s"] for each in mine), default=None)


def advice(evidence: Evidence) -> list[Row]:
    rows = []
    for model in MEASURED_MODELS:
        for output_tokens in OUTPUT_TOKENS:
            curve = sweep(evidence, model, output_tokens)
            name = f"{model}, {output_tokens} output tokens"
            printed = output_tokens == PUBLISHED_OUTPUT_TOKENS
            rows += [
                Row(f"{name}: B_opt", "batch", *curve.both(advised)),
                Row(
                    f"{name}: memory freed",
                    "share",
                    *curve.both(freed(model, "h100-64gb", curve.blocks)),
                    PUBLISHED_FREED[model] if printed else None,
                    near(NEAR) if printed else None,
                ),
                *_why_another(name, curve),
            ]
    return rows


def _why_another(name: str, curve: Pair) -> list[Row]:
    """Where another batch is advised than was by measurement: its latency beside the limit."""
    batches = [batch for batch in curve.both(advised) if batch is not None]
    if len(set(batches)) < 2:
        return []
    words = f"{name}: mean TPOT, batch {max(batches)} over {REFERENCE_BATCH}, limit {LATENCY_FACTOR:g}"
    return [Row(words, "factor", *curve.both(factor("tpot_mean_s", max(batches))))]
