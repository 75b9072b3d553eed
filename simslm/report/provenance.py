"""What was run, on whose figures, and how to run it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simslm.report.certainty import certainty
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
        warnings: what a reader must know before trusting the page.
        coverage: share of busy time inside the measured domain, or None.
        rows: name and value of everything else that is known.
    """

    source: str
    meaning: str
    warnings: list[str]
    coverage: float | None
    rows: list[tuple[str, str]]


def provenance(run: RunTables) -> Provenance:
    source = str(dig(run.manifest, "cost.source", "unknown"))
    coverage = figure_of(run.summary, "coverage.in_domain_time")
    return Provenance(
        source=source,
        meaning=MEANING.get(source, "The manifest does not say where the latencies come from."),
        warnings=_warnings(run, source, coverage),
        coverage=coverage,
        rows=[*_cost_rows(run, source, coverage), *_trace_rows(run), *_file_rows(run), *_run_rows(run)],
    )


def _warnings(run: RunTables, source: str, coverage: float | None) -> list[str]:
    found = [sentence(flag) for flag in dig(run.summary, "cost.flags", [])]
    if source == "roofline":
        found.append(
            "Roofline, not measured: take orders of magnitude and trends from this page, not figures."
        )
    elif changed := _changed(run):
        found.append(
            f"The device’s part of an iteration is not as {source}, but changed by {changed}: by how much the roofline "
            "of the same model and device changes."
        )
    elif coverage is not None and coverage < COVERED:
        found.append(
            f"Only {share(coverage)} of the simulated busy time lies inside the {source} domain; outside it "
            + ("the fitted terms" if source == "calibrated" else "the roofline of the same model and device")
            + " carry the shape on."
        )
    found += _foreign(run)
    if run.excerpt is not None:
        found.append(
            f"{run.excerpt.words} The bounds one by one, the reasons, distributions but for ITL, timeline and slowest "
            "requests are theirs, all other figures of all requests, percentiles of latencies right to 0.013 %."
        )
    if dig(run.manifest, "interrupted"):
        found.append("The simulation was interrupted: the page shows what had happened by then.")
    return found


def sentence(text: str) -> str:
    """A text with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def _changed(run: RunTables) -> str:
    """What cost transforms changed about the device's part, in words."""
    groups = (group for group in run.manifest.get("groups", ()) if isinstance(group, Mapping))
    return " and ".join(dict.fromkeys(str(words) for group in groups for words in group.get("changed", ())))


def _foreign(run: RunTables) -> list[str]:
    """Groups whose host time is not that of the engine which the scenario says is deployed."""
    found = []
    deployment = dig(run.manifest, "scenario.deployment", {})
    specs = dig(deployment, "groups") or [deployment]
    for group, spec in zip(dig(run.manifest, "groups", []), specs, strict=False):
        deployed, measured = dig(spec, "engine.name"), str(dig(group, "engine", "unknown"))
        if deployed and "; host time" not in measured and not measured.lower().startswith(deployed.lower()):
            found.append(
                f"Host time is that of {measured}, but {deployed} is deployed: put its own in its place with the cost "
                "transform host: {fixed_s, per_seq_s}."
            )
    return found


def _cost_rows(run: RunTables, source: str, coverage: float | None) -> list[tuple[str, str]]:
    inside = (
        "nothing measured" if source == "roofline" else "unknown" if coverage is None else share(coverage)
    )
    note, power = str(dig(run.manifest, "cost.note", "")), str(dig(run.summary, "energy.note", ""))
    rows = [
        ("Source", source),
        ("Busy time inside the domain", inside),
        ("How sure", "; ".join(certainty(run.summary))),
        ("Host time of engine", str(dig(run.manifest, "cost.engine", "unknown"))),
        ("Note", note if note != power else ""),
        ("Power", power),
    ]
    return [(name, value) for name, value in rows if value]


def _trace_rows(run: RunTables) -> list[tuple[str, str]]:
    traces = dig(run.manifest, "traces", [])
    rows: list[tuple[str, str]] = []
    for trace in traces if isinstance(traces, list) else []:
        parts = [str(dig(trace, key, "")) for key in ("trace", "device", "cpu", "engine", "date")]
        if digest := str(dig(trace, "content_hash", "")):
            parts.append(f"content {digest[:19]}")
        rows.append(("Trace", " · ".join(part for part in parts if part)))
        if host := str(dig(trace, "host_time", "")):
            rows.append(("Host time is", host))
    return rows


def _file_rows(run: RunTables) -> list[tuple[str, str]]:
    files = dig(run.manifest, "files", [])
    return [
        ("File", f"{dig(file, 'path', '')} · content {str(dig(file, 'sha256', ''))[:12]}")
        for file in (files if isinstance(files, list) else [])
    ]


def _run_rows(run: RunTables) -> list[tuple[str, str]]:
    rows = [
        ("Model", _model(run.manifest)),
        ("Device", _device(run.manifest)),
        ("KV cache", _kv_cache(run.summary)),
        ("Workload", _workload(run.manifest)),
        ("Versions", _versions(run.manifest)),
        ("Simulation", _simulation(run)),
    ]
    return [(name, value) for name, value in rows if value]


def _model(manifest: Mapping[str, Any]) -> str:
    weights = figure_of(manifest, "model.weight_bytes")
    per_token = figure_of(manifest, "model.kv_bytes_per_token")
    if weights is None or per_token is None:
        return ""
    return f"{_parameters(manifest)}weights {bytes_(weights)} · KV {bytes_(per_token)} per token"


def _parameters(manifest: Mapping[str, Any]) -> str:
    size = figure_of(manifest, "model.parameters")
    if size is None:
        return ""
    amount, word = (size / 1e9, "billion") if size >= 1e9 else (size / 1e6, "million")
    return f"{number(amount)} {word} parameters · "


def _device(manifest: Mapping[str, Any]) -> str:
    memory = figure_of(manifest, "device.memory_bytes")
    return "" if memory is None else f"{dig(manifest, 'device.name', 'unnamed')} · {bytes_(memory)}"


def _kv_cache(summary: Mapping[str, Any]) -> str:
    blocks, peak = figure_of(summary, "kv.num_gpu_blocks"), figure_of(summary, "kv.peak_utilization")
    if blocks is None:
        return ""
    used = f" · {share(peak)} used at the peak" if peak is not None else ""
    return f"{count(blocks)} blocks per replica{used} · {count(figure_of(summary, 'kv.preemptions'))} preemptions"


def _workload(manifest: Mapping[str, Any]) -> str:
    """Where the requests came from, what was dropped on the way, and what else there is to know."""
    dropped, notes = dig(manifest, "workload.dropped", {}), dig(manifest, "workload.notes", [])
    parts = [str(dig(manifest, "workload.source", ""))]
    if isinstance(dropped, Mapping):
        parts += [f"{number_of} dropped: {reason}" for reason, number_of in dropped.items()]
    if isinstance(notes, list):
        parts += [str(note) for note in notes]
    return " · ".join(part for part in parts if part)


def _versions(manifest: Mapping[str, Any]) -> str:
    versions = dig(manifest, "versions", {})
    return (
        " · ".join(f"{name} {it}" for name, it in versions.items()) if isinstance(versions, Mapping) else ""
    )


def _simulation(run: RunTables) -> str:
    wall, events = figure_of(run.manifest, "wall_time_s"), figure_of(run.manifest, "events")
    if not wall:
        return ""
    speed = number((figure_of(run.summary, "makespan_s") or 0.0) / wall)
    return f"{seconds(wall)} of computing · {count(events)} events · {speed} × real time"


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
    programs = dig(scenario, "workload.programs.kind")
    each = "requests" if programs is None else f"{programs} programs"
    text = f"{process} of {count(clients)}" if clients is not None else process
    if rate is not None:
        text = f"{process} {number(rate)} {each}/s"
    classes = dig(scenario, "workload.classes", {})
    return ", ".join(part for part in (text, f"{len(classes)} classes" if classes else "") if part)


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
