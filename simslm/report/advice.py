"""What the batching configuration advisor says, in words and tables: for the page of a search, and for the screen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simslm.report.wording import count, share
from simslm.units import bytes_, number, seconds


@dataclass(frozen=True, slots=True)
class AdviceTable:
    """Columns and rows of texts."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class AdviceView:
    """What is shown.

    Attributes:
        sentence: the answer.
        rule: how B_opt is defined.
        tables: of one replica by batch limit, and of several at B_opt.
        command, vllm: of what is recommended; empty without.
    """

    sentence: str
    rule: str
    tables: list[AdviceTable]
    command: str
    vllm: str


def advice_view(advice: Mapping[str, Any]) -> AdviceView:
    """The ``advice`` of a ``frontier.json`` in words and tables."""
    chosen = advice["recommended"]
    return AdviceView(
        _sentence(advice),
        f"B_opt is the largest batch limit B with T(B) / (B T(1)) above {number(advice['epsilon'])}, T being total "
        f"tokens/s, and a mean ITL of at most {number(advice['latency_factor'])} times that at 32 (Recasens et al. "
        "2025).",
        [_curve(advice), *([_gains(advice)] if advice["replicas"] else [])],
        "" if chosen is None else chosen["command"],
        "" if chosen is None else chosen["vllm"],
    )


def _sentence(advice: Mapping[str, Any]) -> str:
    if advice["best_batch"] is None:
        return f"No advice: {advice['reason']}."
    memory = advice["memory"]
    parts = [
        f"B_opt is {count(advice['best_batch'])}. It needs {count(memory['num_gpu_blocks'])} KV blocks, which frees "
        f"{bytes_(memory['freed_bytes'])}; {_fit(memory['replicas_fit'])} in the {bytes_(memory['share_bytes'])} that "
        f"replicas have."
    ]
    if memory["freed_share"] is not None:
        parts.append(
            f"As the study counts it (B = {count(memory['freed_share_batch'])}, by mean TPOT), "
            f"{share(memory['freed_share'])} of the device's memory is free."
        )
    parts.append(_recommended(advice))
    return " ".join(parts)


def _fit(replicas: int) -> str:
    return "one replica fits" if replicas == 1 else f"{count(replicas)} replicas of that size fit"


def _recommended(advice: Mapping[str, Any]) -> str:
    if advice["recommended"] is None:
        return "None of them keeps the constraints of the search."
    number_of = advice["recommended"]["point"]
    row = next(row for row in advice["replicas"] if row["point"] == number_of)
    what = "One replica" if row["replicas"] == 1 else f"{count(row['replicas'])} replicas"
    best, largest = advice["best_single"], advice["largest_batch"]
    return (
        f"{what} at B_opt: {gain(row['gain_over_best_single'])} throughput over the best single replica (batch limit "
        f"{count(best['max_num_seqs'])}), {gain(row['gain_over_largest_batch'])} over the largest batch limit "
        f"({count(largest['max_num_seqs'])}), as predicted."
    )


def gain(value: float) -> str:
    """``+8.1 %``."""
    return f"{100 * value:+.1f} %"


def _curve(advice: Mapping[str, Any]) -> AdviceTable:
    rows = [
        (
            count(row["max_num_seqs"]) + (" (B_opt)" if row["max_num_seqs"] == advice["best_batch"] else ""),
            number(row["total_tokens_per_s"]),
            number(row["efficiency"]),
            seconds(row["itl_mean_s"]),
            number(row["latency_ratio"]),
            share(row["kv_peak"]),
        )
        for row in advice["curve"]
    ]
    columns = ("max_num_seqs", "total tokens/s", "T(B) / (B T(1))", "ITL mean", "of that at 32", "KV peak")
    return AdviceTable("One replica at each batch limit", columns, rows)


def _gains(advice: Mapping[str, Any]) -> AdviceTable:
    rows = [
        (
            count(row["replicas"]),
            number(row["total_tokens_per_s"]),
            gain(row["gain_over_best_single"]),
            gain(row["gain_over_largest_batch"]),
            seconds(row["itl_mean_s"]),
            number(row["latency_ratio"]),
            "yes" if row["keeps_constraints"] else "no",
        )
        for row in advice["replicas"]
    ]
    columns = (
        "replicas",
        "total tokens/s",
        "over the best single",
        "over the largest batch",
        "ITL mean",
        "of that at 32",
        "keeps constraints",
    )
    return AdviceTable("Replicas at B_opt", columns, rows)
