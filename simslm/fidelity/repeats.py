"""A load served several times: how far the simulation is from the mean, beside how far the runs are from each other.

``noise`` is the sample standard deviation over the repeats as a fraction of their mean: what no simulation can beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simslm.catalog.work import equal_prompts
from simslm.fidelity.comparison import relative_error
from simslm.fidelity.live import LiveRun, mean_running
from simslm.fidelity.replicas import interference
from simslm.metrics.files import RunWriter, iterations_arrow, requests_arrow
from simslm.metrics.whole import write_whole

SHAPE = ("decode_seqs", "decode_ctx_tokens", "prefill_seqs", "prefill_tokens", "prefill_ctx_tokens")


def repeats(runs: Sequence[LiveRun]) -> list[dict[str, Any]]:
    """What ``fidelity.json`` says of each load: its figures, and how they repeat.

    Args:
        runs: load by load.
    """
    return [_load(list(group)) for _, group in groupby(runs, key=lambda run: run.load.name)]


def write_load(directory: Path, runs: Sequence[LiveRun]) -> None:
    """Writes both sides of one load: the files of its simulation, and ``*_live.parquet`` with every repeat.

    Args:
        directory: made if it is not there.
        runs: of one load.
    """
    result = runs[0].result
    with RunWriter(directory) as writer:
        for index, window, table in result.windows:
            writer.take(index, window, table)
        writer.finish(result)
    served = {
        "requests_live": pa.concat_tables(_numbered(run, requests_arrow(run.requests)) for run in runs),
        "iterations_live": pa.concat_tables(
            _numbered(run, iterations_arrow(number, table))
            for run in runs
            for number, table in enumerate(run.iterations)
        ),
    }
    for name, table in served.items():
        write_whole(directory / f"{name}.parquet", lambda path, table=table: pq.write_table(table, path))


def _numbered(run: LiveRun, table: pa.Table) -> pa.Table:
    """The same rows, each saying which repeat it is of."""
    return table.add_column(0, "repeat", pa.array([run.number] * len(table), pa.int64()))


def _load(runs: list[LiveRun]) -> dict[str, Any]:
    load = runs[0].load
    return {
        "name": load.name,
        "load": load.share,
        "rate_rps": load.rate_rps,
        "runs": [run.comparison.run.run for run in runs],
        "requests": len(load.prepared.requests),
        "replicas": len(load.prepared.priced),
        "interference": interference(load.prepared),
        "in_domain_time": runs[0].result.summary["coverage"]["in_domain_time"],
        "iterations": _iterations(runs),
        "other_load": [run.other_load for run in runs],
        "mean_running_seqs": {
            "measured": fmean(mean_running(run.iterations) for run in runs),
            "simulated": mean_running(runs[0].result.tables),
        },
        "metrics": {name: _metric(runs, name) for name in runs[0].comparison.error},
    }


def _iterations(runs: list[LiveRun]) -> dict[str, float] | None:
    """The cost of the iterations that really ran, against what they took.

    This is the error of the trace alone, without that of the schedule: a machine that has become slower shows here, and
    near saturation a small error here is a large one in waiting times. Prompts of one iteration are taken to be of one
    length.

    Returns:
        ``total_error`` of their sum, ``median_error`` of each by itself: simulated / measured - 1. None where replicas
        share a device: what an iteration costs then depends on what the others do meanwhile.
    """
    if len(runs[0].iterations) > 1:
        return None
    cost = runs[0].load.prepared.groups[0].cost
    columns = [table.columns for run in runs for table in run.iterations]
    shape = (np.concatenate([each[name] for each in columns]).astype(float) for name in SHAPE)
    took = np.concatenate([each["duration_s"] for each in columns])
    predicted = cost.evaluate(equal_prompts(*shape)).latency_s
    return {
        "total_error": float(predicted.sum() / took.sum() - 1),
        "median_error": float(np.median(predicted / took) - 1),
    }


def _metric(runs: list[LiveRun], name: str) -> dict[str, float | None]:
    values = [run.comparison.run.measured[name] for run in runs]
    simulated, mean = runs[0].comparison.simulated[name], fmean(values)
    return {
        "measured": mean,
        "simulated": simulated,
        "error": relative_error(mean, simulated),
        "noise": stdev(values) / mean if len(values) > 1 and mean else None,
    }
