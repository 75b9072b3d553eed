"""``simslm traces``."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simslm.cli import screen
from simslm.cli.destination import free_place
from simslm.errors import TraceError, UsageError, nearest
from simslm.units import number, seconds

if TYPE_CHECKING:
    from simslm.traces.files import Trace
    from simslm.traces.side_by_side import Pair

SEVERITY_FAILS = "error"

DEFAULT_ROOT = Path("traces")
"""Default directory of traces; it may not exist yet."""


def list_all(root: Path, as_json: bool) -> None:
    """Prints every trace below a directory."""
    from simslm.traces.files import list_traces

    if not root.is_dir() and root != DEFAULT_ROOT:
        raise UsageError("no such directory", where=str(root))
    found = list_traces(root)
    if as_json:
        screen.show_json([asdict(trace) for trace in found])
    elif not found:
        screen.note(f"no traces below {root}; `simslm profile` measures one")
    else:
        rows = []
        for trace in found:
            origin = trace.provenance
            said = (
                trace.problem
                or f"{origin.get('source')}, {origin.get('engine')}, {str(origin.get('date'))[:10]}"
            )
            rows.append((trace.path, trace.rows.get("iterations", 0), trace.rows.get("kernels", 0), said))
        screen.show_table(("trace", "iterations", "kernels", "from"), rows, left=(0, 3))


def show(path: Path, as_json: bool) -> None:
    """Prints the provenance and the extent of one trace."""
    from simslm.traces.files import read_trace

    trace = read_trace(path)
    if as_json:
        screen.show_json(
            {"provenance": trace.provenance, "content_hash": trace.content_hash, "extent": extent(trace)}
        )
        return
    print(f"{path}")
    print()
    screen.show_facts([(name, _short(value)) for name, value in trace.provenance.items()])
    screen.show_facts([("content_hash", trace.content_hash)])
    print()
    screen.show_facts(list(extent(trace).items()))


def extent(trace: Trace) -> dict[str, Any]:
    """What the tables of a trace cover, in words."""
    from simslm.traces.check import throttle_by_visit
    from simslm.traces.shapes import alone

    tables = {"iterations": trace.iterations, "heldout": trace.heldout, "kernels": trace.kernels}
    tables |= {"power": trace.power, "terms": trace.terms}
    facts: dict[str, Any] = {
        name: f"{table.num_rows:,} rows" for name, table in tables.items() if table is not None
    }
    if trace.iterations is None:
        return facts
    columns = {name: trace.iterations.column(name).to_numpy() for name in ("decode_seqs", "prefill_tokens")}
    context = trace.iterations.column("decode_ctx_tokens").to_numpy()
    decoding = columns["decode_seqs"] > 0
    latency = trace.iterations.column("latency_s").to_numpy()
    facts["batch"] = f"up to {columns['decode_seqs'].max():,} decoding sequences"
    if decoding.any():
        longest = (context[decoding] / columns["decode_seqs"][decoding]).max()
        facts["context"] = f"up to {number(float(longest))} tokens per sequence"
    facts["prefill"] = f"up to {columns['prefill_tokens'].max():,} tokens"
    alone_rows = alone(trace.iterations)
    if any(alone_rows.column("throttle").to_pylist()):
        facts["throttled"] = f"by visit {throttle_by_visit(alone_rows)} of the calls"
    facts["latency"] = f"{seconds(float(latency.min()))} to {seconds(float(latency.max()))}"
    return facts


def check(path: Path, as_json: bool) -> None:
    """Prints every finding about a trace; an error among them ends with exit code 3."""
    from simslm.cost.heldout import heldout_findings
    from simslm.cost.portrait import heldout_points
    from simslm.traces.check import check_trace
    from simslm.traces.files import read_trace

    trace = read_trace(path)
    findings = check_trace(trace) + heldout_findings(heldout_points(trace))
    if as_json:
        screen.show_json({"findings": [asdict(finding) for finding in findings]})
    elif not findings:
        print(f"{path}: nothing to report")
    else:
        for finding in findings:
            print(f"{finding.severity}: {finding.what} ({finding.where}); {finding.remedy}")
    if any(finding.severity == SEVERITY_FAILS for finding in findings):
        raise TraceError(
            "this trace has errors and should not be used", where=str(path), remedy="measure it again"
        )


def compare(first: Path, second: Path, as_json: bool) -> None:
    """Prints how two traces' iterations of the same shapes compare."""
    from simslm.traces.files import read_trace
    from simslm.traces.side_by_side import AREAS, differing_settings, mean_ratio, side_by_side

    traces = [read_trace(path) for path in (first, second)]
    pairs, engines = side_by_side(*traces), [trace.provenance["engine"] for trace in traces]
    by_area = {area: [pair for pair in pairs if pair.area == area] for area in AREAS}
    means = {area: mean_ratio(found) for area, found in by_area.items() if found}
    differing = differing_settings(*traces)
    if as_json:
        shown = [asdict(p) | {"ratio": p.ratio, "tokens_per_s": p.tokens_per_s} for p in pairs]
        screen.show_json({"engines": engines, "differing": differing, "mean_ratio": means, "shapes": shown})
        return
    screen.show_facts([("A", f"{engines[0]} ({first})"), ("B", f"{engines[1]} ({second})")])
    screen.show_facts([(name, f"{_short(a)} in A, {_short(b)} in B") for name, (a, b) in differing.items()])
    print()
    columns = ("shape", "A", "B", "A tokens/s", "B tokens/s", "B ÷ A", "95 %")
    screen.show_table(columns, [_compared(pair) for pair in pairs])
    print()
    for area, mean in means.items():
        count = len(by_area[area])
        print(f"{area}: B takes {number(mean)} times as long as A (geometric mean over {count} shapes)")


def _compared(pair: Pair) -> tuple[str, ...]:
    interval = "-" if pair.interval is None else " to ".join(map(number, pair.interval))
    latencies = map(seconds, pair.latency_s)
    rates = map(number, pair.tokens_per_s)
    return (pair.label, *latencies, *rates, number(pair.ratio), interval)


def schema(as_json: bool) -> None:
    """Prints the format of a trace."""
    from simslm.traces.format_page import markdown
    from simslm.traces.schema import PROVENANCE, REQUIRED_PROVENANCE, ROWS, SCHEMA_VERSION, TABLES

    if not as_json:
        print(markdown(), end="")
        return
    tables = {
        name: {
            "row": ROWS[name],
            "columns": [
                {"name": field.name, "type": str(field.type), "nullable": field.nullable}
                | {key.decode(): value.decode() for key, value in field.metadata.items()}
                for field in table
            ],
        }
        for name, table in TABLES.items()
    }
    required = {source: list(keys) for source, keys in REQUIRED_PROVENANCE.items()}
    screen.show_json(
        {"version": SCHEMA_VERSION, "tables": tables, "provenance": dict(PROVENANCE), "required": required}
    )


def convert(
    csv: Path, model: str, device: str, dtype: str, engine: str, output: Path, replace: bool, as_json: bool
) -> None:
    """Writes a trace of iterations measured elsewhere, and prints where it is."""
    from simslm.catalog.devices import device_names
    from simslm.catalog.models import model_names
    from simslm.traces.files import holds_trace
    from simslm.traces.importers.iterations_csv import import_csv

    date = datetime.now(UTC).date().isoformat()
    place = free_place(output)
    if holds_trace(place) and not replace:
        raise UsageError(
            "holds a trace already", where=str(place), remedy="choose another with `-o`, or say `--replace`"
        )
    trace = import_csv(csv, place, model=model, dtype=dtype, device=device, engine=engine, date=date)
    for kind, name, known in (("model", model, model_names()), ("device", device, device_names())):
        if name not in known:
            screen.note(
                f"note: {kind} {name!r} is not in the catalogue{nearest(name, known)}: only a scenario with a "
                f"{kind} of this very name can use the trace"
            )
    if as_json:
        screen.show_json({"trace": str(trace.path), "content_hash": trace.content_hash})
    else:
        print(trace.path)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else text[:97] + "..."
