"""``simslm workload show`` and ``make``."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simslm.catalog.presets import holds_preset, load_preset, preset_names
from simslm.cli import screen
from simslm.cli.destination import free_place
from simslm.cli.simulate import overrides
from simslm.errors import UsageError, nearest
from simslm.scenario.lengths import MOST_TOKENS
from simslm.units import number, seconds
from simslm.workload.traffic import Traffic, figures, generated_traffic, recorded_traffic

if TYPE_CHECKING:
    from simslm.report.traffic import Drawn, TrafficPage
    from simslm.workload.requests import RequestArrays

SCENARIO_ENDINGS = (".yaml", ".yml", ".json")
RARE_S = 3600.0
"""Mean gap from which on arrival times are asked about, seconds."""
RATE_WINDOWS = 200
"""Windows in which the page shows the rate, at most."""


@dataclass(frozen=True)
class ShownTraffic:
    """A traffic that was asked for.

    Attributes:
        title: what it is called.
        traffic: its requests.
        origin: where they come from, in words.
        source: names and values of a preset's source.
        notes: what one should know.
        dropped: rows that are no requests, by reason.
    """

    title: str
    traffic: Traffic
    origin: str
    source: Sequence[tuple[str, str]]
    notes: Sequence[str]
    dropped: dict[str, int]


def show(
    source: str, output: Path | None, format_: str, sets: list[str], seed: int | None, as_json: bool
) -> None:
    """Prints what a trace, a preset or a scenario's workload is like; with ``output``, a page of it."""
    if output is not None:
        free_place(output.parent)
    found = _found(source, format_, overrides(sets, seed))
    known = figures(found.traffic)
    if as_json:
        screen.show_json(
            {"origin": found.origin, "dropped": found.dropped, "notes": list(found.notes), **known}
        )
    else:
        print(f"{found.title}: {found.origin}")
        print()
        _show_figures(known, found)
    if output is not None:
        command = _command("show", source, ["-o", str(output)], sets, seed)
        page = _page(found, known, command)
        write_page(output, page, [drawn_of(found.title, found.traffic)])
        screen.note(f"page: {output}")


def make(source: str, output: Path, sets: list[str], seed: int | None, as_json: bool) -> None:
    """Writes the requests of a preset or a scenario."""
    from simslm.metrics.whole import write_whole
    from simslm.workload.written import ENDINGS, check_writable, left_out, write_requests

    if output.suffix not in ENDINGS:
        raise UsageError(
            f"{output.suffix or 'no ending'} is no kind of file that can be written",
            where=str(output),
            remedy=f"choose one of {', '.join(ENDINGS)}",
        )
    free_place(output.parent)
    count, kept_out = 0, []

    def checked() -> Iterator[RequestArrays]:
        for piece in _pieces(source, overrides(sets, seed)):
            check_writable(piece)
            kept_out[:] = left_out(piece)
            yield piece

    def write(path: Path) -> None:
        nonlocal count
        count = write_requests(path, checked(), output.suffix)

    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, write)
    if kept_out:
        screen.note(
            f"note: {' and '.join(kept_out)} are not in the file; simulate the scenario itself for those"
        )
    if as_json:
        screen.show_json({"file": str(output), "requests": count})
    else:
        print(f"{output}: {count:,} requests")


def _found(source: str, format_: str, settings: list[str]) -> ShownTraffic:
    """What a source names: a preset, a scenario or a trace."""
    path = Path(source)
    if source in preset_names() or (path.suffix in SCENARIO_ENDINGS and not _is_trace(path)):
        return _generated(source, settings)
    if settings:
        raise UsageError("--set and --seed are for presets and scenarios", where=source)
    if not path.exists() and "/" not in source and not path.suffix:
        raise UsageError(
            f"no preset {source!r}{nearest(source, preset_names())}, and no file either",
            remedy="`simslm list workloads` names the presets",
        )
    return recorded(path, format_)


def _is_trace(path: Path) -> bool:
    """Whether a file with the ending of a scenario is a trace, or a data set, in JSON: a list, or an object a line."""
    if path.suffix != ".json" or not path.is_file():
        return False
    from simslm.workload.readers import begins_as_trace

    return begins_as_trace(path)


def recorded(path: Path, format_: str) -> ShownTraffic:
    from simslm.workload.readers import FORMATS, detect, read_pieces

    if format_ not in ("auto", *FORMATS):
        raise UsageError(
            f"no format {format_!r}{nearest(format_, list(FORMATS))}", remedy=f"known: {', '.join(FORMATS)}"
        )
    name = detect(path) if format_ == "auto" else format_
    dropped: dict[str, int] = {}
    images, sessions, chained = 0, -1, 0
    pieces = []
    for piece in read_pieces(path, name):
        for reason, count in piece.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
        images += 0 if piece.images is None else int(piece.images.sum())
        chained += piece.chained
        sessions = max(sessions, -1 if piece.session_id is None else int(piece.session_id.max(initial=-1)))
        pieces.append(piece)
    notes = [f"{count:,} rows dropped: {reason}" for reason, count in dropped.items()]
    notes += [f"{sessions + 1:,} sessions"] if sessions >= 0 else []
    notes += [f"{images:,} images, whose encoding is not simulated"] if images else []
    if chained:
        notes.append(
            f"{chained:,} requests state a delay after the answer before them: here as if answers took no time; to "
            "replay them, add programs: {kind: sessions, think_time_s: {dist: recorded}}"
        )
    traffic = recorded_traffic(pieces)
    if traffic.timed and len(traffic) > 1 and traffic.span_s > RARE_S * (len(traffic) - 1):
        notes.append(
            f"a request every {seconds(traffic.span_s / (len(traffic) - 1))}: are the arrival times in the unit that "
            "this format has?"
        )
    if not traffic.timed:
        notes.append(
            "says nothing of when requests arrive: replay it with arrivals: {process: ...} beside it"
        )
    if not len(traffic):
        raise UsageError("holds no request", where=str(path), remedy="; ".join(notes))
    return ShownTraffic(path.name, traffic, f"{name}: {FORMATS[name].what}", (), notes, dropped)


def _generated(source: str, settings: list[str]) -> ShownTraffic:
    pieces = list(_pieces(source, settings))
    if _is_preset(source):
        preset = load_preset(source)
        facts = [(name, str(value)) for name, value in preset.source.items()]
        return ShownTraffic(
            preset.name, generated_traffic(pieces), preset.what or pieces[0].source, facts, (), {}
        )
    first = pieces[0]
    notes = [f"{count:,} rows dropped: {reason}" for reason, count in first.dropped.items()]
    title = Path(source).name
    return ShownTraffic(
        title, generated_traffic(pieces), first.source, (), [*notes, *first.notes], dict(first.dropped)
    )


def _is_preset(source: str) -> bool:
    if source in preset_names():
        return True
    from simslm.catalog.files import read_mapping

    return Path(source).suffix in SCENARIO_ENDINGS and holds_preset(read_mapping(Path(source)))


def _pieces(source: str, settings: list[str]) -> Iterator[RequestArrays]:
    """The requests of a preset or a scenario; those in classes or programs at once."""
    from simslm.scenario.load import load_scenario
    from simslm.workload import supply_of
    from simslm.workload.generate import generated_pieces
    from simslm.workload.supply import RequestStream

    if not _is_preset(source) and Path(source).suffix not in SCENARIO_ENDINGS:
        raise UsageError(
            f"neither a preset{nearest(source, preset_names())} nor a scenario",
            where=source,
            remedy="`simslm list workloads` names the presets; a scenario is a .yaml or .json file",
        )
    scenario = load_scenario(_bare(source) if _is_preset(source) else source, settings)
    workload = scenario.workload
    given = workload, scenario.seed, MOST_TOKENS, scenario.base_dir
    if workload.classes is None and workload.programs is None and workload.replay is None:
        yield from generated_pieces(*given)
        return
    requests = supply_of(*given)
    yield from requests.pieces() if isinstance(requests, RequestStream) else (requests,)


def _bare(source: str) -> dict[str, Any]:
    """A scenario with nothing but a preset; one without arrivals has all requests at once."""
    section: dict[str, Any] = {"preset": source}
    if "arrivals" not in load_preset(source).workload:
        section["arrivals"] = {"process": "all-at-once"}
    return {
        "name": source,
        "model": "opt-125m",
        "device": "cpu",
        "cost": {"roofline": {}},
        "workload": section,
    }


def _show_figures(known: dict[str, Any], found: ShownTraffic) -> None:
    rows = _figure_rows(known)
    screen.show_facts([*rows, *(("note", note) for note in found.notes)])
    print()
    lengths = [known["prompt_tokens"], known["output_tokens"]]
    names = ("prompt tokens", "output tokens")
    rows = [[name, *map(number, each.values())] for name, each in zip(names, lengths, strict=True)]
    screen.show_table(("", *lengths[0]), rows)


def _figure_rows(known: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and values of what is not about lengths."""
    rows = [
        (
            "requests",
            f"{known['requests']:,}" + (f" in {seconds(known['span_s'])}" if known["span_s"] else ""),
        )
    ]
    if known["rate_rps"] is not None:
        rows.append(("rate", f"{number(known['rate_rps'])} requests/s"))
        rows.append(("CV of gaps", number(known["gap_cv"])))
        for name, words in (("peak_to_mean", "peak to mean"), ("dispersion", "index of dispersion")):
            rows.append((words, ", ".join(f"{number(known[f'{name}_{w}s'])} in {w} s" for w in (1, 60))))
    if known["tick_s"] is not None:
        rows.append(("clock", f"ticks every {seconds(known['tick_s'])}"))
    rows.append(("rank correlation", f"{number(known['rank_correlation'])} between prompt and output tokens"))
    return rows


def drawn_of(name: str, traffic: Traffic, until_s: float | None = None) -> Drawn:
    """What a page draws of a traffic, its rate up to a time."""
    from simslm.report.traffic import Drawn

    rates, edges = np.zeros(0), np.zeros(0)
    span_s = min(traffic.span_s, until_s or traffic.span_s)
    if traffic.timed and span_s > 0:
        edges = np.linspace(0.0, span_s, int(np.clip(len(traffic) // 20, 2, RATE_WINDOWS)) + 1)
        rates = np.histogram(traffic.arrival_s, edges)[0] / np.diff(edges)
    gaps = traffic.gaps_s if traffic.timed else np.zeros(0)
    return Drawn(name, edges, rates, gaps, traffic.prompt_tokens, traffic.output_tokens)


def _page(found: ShownTraffic, known: dict[str, Any], command: str) -> TrafficPage:
    from simslm.report.traffic import TrafficPage

    rows = list(_figure_rows(known))
    for name in ("prompt_tokens", "output_tokens"):
        each = ", ".join(f"{key} {number(value)}" for key, value in known[name].items())
        rows.append((name.replace("_", " "), each))
    return TrafficPage(
        found.title,
        [f"{len(found.traffic):,} requests", found.origin],
        _sentence(known),
        ("", "figure"),
        rows,
        found.notes,
        found.source,
        "",
        command,
    )


def _sentence(known: dict[str, Any]) -> str:
    lengths = (
        f"{number(known['prompt_tokens']['mean'])} prompt and {number(known['output_tokens']['mean'])} output tokens "
        "each in the mean"
    )
    if known["rate_rps"] is None:
        return f"{lengths}."
    return f"{number(known['rate_rps'])} requests/s with gaps of CV {number(known['gap_cv'])}; {lengths}."


def write_page(output: Path, page: TrafficPage, drawn: Sequence[Drawn]) -> None:
    from simslm.metrics.whole import write_whole
    from simslm.report.traffic import render_traffic

    text = render_traffic(page, drawn)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, lambda path: path.write_text(text, encoding="utf-8", newline="\n"))


def _command(word: str, source: str, more: list[str], sets: list[str], seed: int | None) -> str:
    words = ["simslm", "workload", word, source, *more]
    for text in sets:
        words += ["--set", text]
    return shlex.join([*words, "--seed", str(seed)] if seed is not None else words)
