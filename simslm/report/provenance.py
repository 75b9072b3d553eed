"""What was run, on whose figures, and how to run it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simslm.report.tables import RunTables, dig, figure_of
from simslm.report.timeline import replica_count
from simslm.report.wording import count, share
from simslm.units import bytes_, number, seconds

MEANING = {
    "measured": "Latencies interpolate iterations measured on the device.",
    "calibrated": "Latencies come from a few physical terms fitted to end-to-end measurements.",
    "imported": "Latencies come from a trace made by another tool, taken as it is.",
    "roofline": "Latencies come from the device’s peak rates and the model’s arithmetic; nothing was measured.",
}
COVERED = 0.95
"""Share of busy time inside the measured domain below which a page warns."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the figures come from.

    Attributes:
        source: ``measured | calibrated | imported | roofline``, or what the manifest says, or ``unknown``.
        meaning: one sentence on what that is worth.
        warning: what a reader must know before trusting the page; empty when there is nothing.
        coverage: share of busy time inside the measured domain, or None.
        rows: name and value of everything else that is known.
    """

    source: str
    meaning: str
    warning: str
    coverage: float | None
    rows: list[tuple[str, str]]


def provenance(run: RunTables) -> Provenance:
    source = str(dig(run.manifest, "cost.source", "unknown"))
    coverage = figure_of(run.summary, "coverage.in_domain_time")
    return Provenance(
        source=source,
        meaning=MEANING.get(source, "The manifest does not say where the latencies come from."),
        warning=_warning(source, coverage),
        coverage=coverage,
        rows=[*_cost_rows(run, source, coverage), *_trace_rows(run), *_run_rows(run)],
    )


def _warning(source: str, coverage: float | None) -> str:
    if source == "roofline":
        return "Roofline, not measured: take orders of magnitude and trends from this page, not figures."
    if coverage is not None and coverage < COVERED:
        return (
            f"Only {share(coverage)} of the simulated busy time lies inside the {source} domain; "
            "outside it the roofline of the same model and device carries the shape on."
        )
    return ""


def _cost_rows(run: RunTables, source: str, coverage: float | None) -> list[tuple[str, str]]:
    inside = (
        "nothing measured" if source == "roofline" else "unknown" if coverage is None else share(coverage)
    )
    rows = [
        ("Source", source),
        ("Busy time inside the domain", inside),
        ("Host time of engine", str(dig(run.manifest, "cost.engine", "unknown"))),
        ("Cost note", str(dig(run.manifest, "cost.note", ""))),
        ("Energy note", str(dig(run.summary, "energy.note", ""))),
    ]
    return [(name, value) for name, value in rows if value]


def _trace_rows(run: RunTables) -> list[tuple[str, str]]:
    traces = dig(run.manifest, "traces", [])
    rows = []
    for trace in traces if isinstance(traces, list) else []:
        about = [
            str(trace[key])
            for key in ("device", "engine", "date")
            if isinstance(trace, Mapping) and trace.get(key)
        ]
        digest = str(dig(trace, "content_hash", ""))
        text = " · ".join(
            [str(dig(trace, "path", "unnamed")), *about, *([f"content {digest[:19]}"] if digest else [])]
        )
        rows.append(("Trace", text))
    return rows


def _run_rows(run: RunTables) -> list[tuple[str, str]]:
    manifest, rows = run.manifest, []
    if (size := figure_of(manifest, "model.weight_bytes")) is not None:
        per_token = bytes_(figure_of(manifest, "model.kv_bytes_per_token") or 0)
        params = number((figure_of(manifest, "model.parameters") or 0) / 1e9)
        rows.append(
            ("Model", f"{params} × 10⁹ parameters · weights {bytes_(size)} · KV {per_token} per token")
        )
    if (memory := figure_of(manifest, "device.memory_bytes")) is not None:
        rows.append(("Device", f"{dig(manifest, 'device.name', 'unnamed')} · {bytes_(memory)}"))
    if (blocks := figure_of(run.summary, "kv.num_gpu_blocks")) is not None:
        peak = figure_of(run.summary, "kv.peak_utilization")
        used = f" · {share(peak)} used at the peak" if peak is not None else ""
        lost = count(figure_of(run.summary, "kv.preemptions"))
        rows.append(("KV cache", f"{count(blocks)} blocks per replica{used} · {lost} preemptions"))
    versions = dig(manifest, "versions", {})
    if isinstance(versions, Mapping) and versions:
        rows.append(("Versions", " · ".join(f"{name} {version}" for name, version in versions.items())))
    if (wall := figure_of(manifest, "wall_time_s")) is not None:
        speed = number((figure_of(run.summary, "makespan_s") or 0) / wall) if wall else "–"
        events = count(figure_of(manifest, "events"))
        rows.append(("Simulation", f"{seconds(wall)} of computing, {events} events, {speed} × real time"))
    return rows


def setup(run: RunTables) -> list[str]:
    """What was run, in the few words of a page's header."""
    scenario = run.scenario
    parts = [
        _name(dig(run.manifest, "model.name") or dig(scenario, "model")),
        str(dig(scenario, "dtype", "")),
        _name(dig(run.manifest, "device.name") or dig(scenario, "device")),
        _deployment(run),
        str(dig(scenario, "deployment.engine.batching.policy", "")),
        _arrivals(scenario),
        f"seed {run.manifest['seed']}" if "seed" in run.manifest else "",
    ]
    return [part for part in parts if part]


def _name(value: Any) -> str:
    return str(value.get("name", "inline")) if isinstance(value, Mapping) else str(value or "")


def _deployment(run: RunTables) -> str:
    replicas = replica_count(run)
    devices = figure_of(run.scenario, "deployment.num_devices")
    text = f"{replicas} replica{'s' if replicas > 1 else ''}"
    if devices is None:
        return text
    sharing = dig(run.scenario, "deployment.sharing", "none")
    shared = f", {sharing}" if sharing != "none" and replicas > devices else ""
    return f"{text} on {count(devices)} device{'s' if devices > 1 else ''}{shared}"


def _arrivals(scenario: Mapping[str, Any]) -> str:
    if (replayed := dig(scenario, "workload.replay.format")) is not None:
        return f"replay of {replayed}"
    process = str(dig(scenario, "workload.arrivals.process", ""))
    rate, clients = (
        figure_of(scenario, "workload.arrivals.rate_rps"),
        figure_of(scenario, "workload.arrivals.concurrency"),
    )
    if rate is not None:
        return f"{process} {number(rate)} requests/s"
    return f"{process} of {count(clients)}" if clients is not None else process


def reproduce_command(run: RunTables) -> str:
    """The command line that made the run, or what to type with the scenario below when it is not recorded."""
    command = run.manifest.get("command")
    if isinstance(command, list):
        return shlex.join(str(word) for word in command)
    return str(command) if command else "simslm simulate scenario.yaml"


def scenario_text(run: RunTables) -> str:
    """The resolved scenario as YAML, ready to be saved and simulated."""
    from io import StringIO

    from ruamel.yaml import YAML

    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[attr-defined]
    yaml.width = 100
    text = StringIO()
    yaml.dump(dict(run.scenario), text)
    return text.getvalue()
