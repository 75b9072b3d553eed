"""``RUNS.csv``: one measured run a row, what was run on the left, what was measured on the right.

A cell that is empty was not measured. Every error names the file, the line, the column and what to do.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from simslm.catalog.devices import device_named
from simslm.catalog.models import named_model
from simslm.errors import SimslmError, UsageError, nearest

STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")
LATENCIES = ("ttft", "tpot", "itl", "e2e", "queue")

MEASURED = (
    "duration_s",
    "requests_per_s",
    "output_tokens_per_s",
    "total_tokens_per_s",
    "steady_output_tokens_per_s",
    *(f"{latency}_{statistic}_s" for latency in LATENCIES for statistic in STATISTICS),
    "preemptions",
    "kv_peak",
    "power_mean_w",
    "power_active_p50_w",
    "power_idle_w",
    "energy_j",
    "sm_busy_pct",
    "mem_busy_pct",
)
"""Columns of what may have been measured."""

MISSPELT = 0.92
"""Likeness from which an unknown column is taken for a known one: a letter more or less, not another figure."""

Lengths = tuple[tuple[int, ...], tuple[int, ...]]
"""Prompt and output tokens of the single requests."""

BATCHINGS = ("prefill-first", "chunked-prefill", "orca", "static")
SHARINGS = ("none", "mps", "time-slice", "streams", "sm-partition")
ARRIVALS = "all-at-once, poisson:RPS, gamma:RPS:CV, closed-loop:N or recorded"
_POSITIVE = r"((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
ARRIVALS_FORM = re.compile(
    rf"all-at-once|recorded|poisson:{_POSITIVE}|gamma:{_POSITIVE}:{_POSITIVE}|closed-loop:([1-9]\d*)"
)


@dataclass(frozen=True, slots=True)
class CountedWindow:
    """The part of a run that its client measured: what came before and after was served, but does not count.

    Attributes:
        warmup_s: from the first arrival to its beginning.
        measured_s: its length.
    """

    warmup_s: float
    measured_s: float


@dataclass(frozen=True, slots=True)
class Skipped:
    """A run, or a file of them, that is left out, and why."""

    run: str
    reason: str


@dataclass(frozen=True)
class MeasuredRun:
    """One run of a serving engine: what was run, and what was measured.

    Attributes:
        run: its name, different from that of every other run of the table.
        model, device: names; those of the catalogue where it has them.
        engine: name and version of what served; empty when not known.
        workload: ``fixed`` (all requests alike) or the name of what the lengths come from.
        prompt_tokens, output_tokens: means over the requests, perhaps fractional.
        lengths_file: where the lengths of the single requests stand, None when nowhere.
        num_requests: how many were sent, to all replicas together.
        arrivals: ``all-at-once | poisson:RPS | gamma:RPS:CV | closed-loop:N | recorded``.
        max_num_seqs, max_num_batched_tokens: limits of each replica; None for the engine's default of the latter.
        batching: name of the batching policy.
        replicas, sharing: how many shared the one device, and how.
        num_gpu_blocks: KV blocks of each replica; None when not known.
        sm_clock_mhz: clock the device ran at; None when not known.
        measured: by column of ``RUNS.csv``; what was not measured is not there.
        where: file and line it was read from, for errors.
        lengths: prompt and output tokens of the single requests, where the run's own file has them.
        arrival_s: when each of them arrived, ascending from 0, where the run's own file says so.
        device_spec: what the device is, where the catalogue does not have it.
        window: the part of the run that was measured; None for all of it.
        notes: what a reader of its figures should know.
        lengths_assumed: whether requests are taken to be alike because the lengths of each were not saved.
    """

    run: str
    model: str
    device: str
    engine: str
    workload: str
    prompt_tokens: float
    output_tokens: float
    lengths_file: Path | None
    num_requests: int
    arrivals: str
    max_num_seqs: int
    max_num_batched_tokens: int | None
    batching: str
    replicas: int
    sharing: str
    num_gpu_blocks: int | None
    sm_clock_mhz: float | None
    measured: Mapping[str, float]
    where: str = ""
    lengths: Lengths | None = None
    arrival_s: tuple[float, ...] | None = None
    device_spec: Mapping[str, Any] | None = field(default=None, hash=False)
    window: CountedWindow | None = None
    notes: tuple[str, ...] = ()
    lengths_assumed: bool = False

    @property
    def concurrency(self) -> int | None:
        """Clients of a closed loop; None for other arrivals."""
        process, _, clients = self.arrivals.partition(":")
        return int(clients) if process == "closed-loop" else None

    @property
    def paced(self) -> bool:
        """Whether arrivals have times of their own, which do not move with the engine's speed."""
        return self.concurrency is None and self.arrivals != "all-at-once"

    @property
    def drawn(self) -> bool:
        """Whether arrivals are drawn by chance: those of the measurement were others."""
        return self.paced and self.arrivals != "recorded"

    @property
    def spread_of_arrivals(self) -> float | None:
        """Relative standard deviation of the time that the arrivals take; None where they are not drawn by chance."""
        if not self.drawn:
            return None
        _, _, *cv = self.arrivals.split(":")
        return float(cv[0] if cv else 1.0) / math.sqrt(self.num_requests)


@dataclass(frozen=True)
class Column:
    """How a cell of a column is read.

    Attributes:
        expected: what it should hold, for messages.
        read: from its text; raises ValueError for a wrong one.
        required: whether it may neither be empty nor missing.
        blank: what an empty or missing one means otherwise.
    """

    expected: str
    read: Callable[[str], Any]
    required: bool = True
    blank: Any = None


def _whole(text: str) -> int:
    value = float(text)
    if not 1 <= value <= 2**53 or value != int(value):
        raise ValueError(text)
    return int(value)


def _at_least(low: float, text: str) -> float:
    value = float(text)
    if not low <= value < math.inf:
        raise ValueError(text)
    return value


def _one_of(known: tuple[str, ...], text: str) -> str:
    if text not in known:
        raise ValueError(text)
    return text


def _arrivals(text: str) -> str:
    found = ARRIVALS_FORM.fullmatch(text)
    if not found or any(float(figure) <= 0 for figure in found.groups() if figure):
        raise ValueError(text)
    return text


_TOKENS = Column("a mean number of tokens, 1 or more", lambda text: _at_least(1, text))
_COUNT = Column("a whole number, 1 or more", _whole)
SETTINGS: dict[str, Column] = {
    "run": Column("a name", str),
    "model": Column("a model of the catalogue", str),
    "device": Column("a device of the catalogue", str),
    "engine": Column("a name", str, required=False, blank=""),
    "workload": Column("a name", str, required=False, blank="fixed"),
    "prompt_tokens": _TOKENS,
    "output_tokens": _TOKENS,
    "lengths_file": Column("a path relative to this file", str, required=False),
    "num_requests": _COUNT,
    "arrivals": Column(ARRIVALS, _arrivals),
    "max_num_seqs": _COUNT,
    "max_num_batched_tokens": Column(_COUNT.expected, _whole, required=False),
    "batching": Column(f"one of {', '.join(BATCHINGS)}", lambda text: _one_of(BATCHINGS, text)),
    "replicas": Column(_COUNT.expected, _whole, required=False, blank=1),
    "sharing": Column(
        f"one of {', '.join(SHARINGS)}", lambda text: _one_of(SHARINGS, text), required=False, blank="none"
    ),
    "num_gpu_blocks": Column(_COUNT.expected, _whole, required=False),
    "sm_clock_mhz": Column("a number of MHz, 1 or more", lambda text: _at_least(1, text), required=False),
}
"""Columns of what was run."""

FIGURE = Column("a number, 0 or more", lambda text: _at_least(0, text), required=False)


def read_runs(path: Path, settings: Mapping[str, str] | None = None) -> list[MeasuredRun]:
    """The rows of a ``RUNS.csv``, in their order, all of which must be good; see :func:`read_table`.

    Raises:
        UsageError: naming file, line, column and remedy.
    """
    runs, skipped = read_table(path, settings or {}, {})
    if skipped:
        raise UsageError(skipped[0].reason)
    return runs


def read_table(
    path: Path, settings: Mapping[str, str], assumed: Mapping[str, str]
) -> tuple[list[MeasuredRun], list[Skipped]]:
    """The rows of a ``RUNS.csv``, in their order, and those that are wrong.

    Columns of other names are ignored, unless nearly of a known one.

    Args:
        path: the file.
        settings: texts by column, in place of what every row says there.
        assumed: texts by column, where a row says nothing.

    Raises:
        UsageError: it is no such table.
    """
    runs: list[MeasuredRun] = []
    skipped: list[Skipped] = []
    places: dict[str, str] = {}
    header, rows = _rows(path, {**assumed, **settings})
    for line, row in rows:
        where = f"{path}:{line}"
        name = row[header.index("run")].strip() if header.index("run") < len(row) else ""
        try:
            cells = _cells(header, row, where)
            run = make_run(filled(cells, assumed) | dict(settings), where, path.parent)
            if run.run in places:
                _refuse(where, "run", f"{run.run!r} is the name of {places[run.run]} too", "give it another")
        except SimslmError as error:
            skipped.append(Skipped(name or where, str(error)))
            continue
        places[run.run] = where
        runs.append(run)
    return runs, skipped


def filled(cells: Mapping[str, str], assumed: Mapping[str, str]) -> dict[str, str]:
    """The same with what is assumed where a cell is empty."""
    return {**cells, **{name: text for name, text in assumed.items() if not (cells.get(name) or "").strip()}}


def make_run(
    cells: Mapping[str, str],
    where: str,
    folder: Path,
    lengths: Lengths | None = None,
    arrival_s: tuple[float, ...] | None = None,
    window: CountedWindow | None = None,
    notes: Sequence[str] = (),
) -> MeasuredRun:
    """A run from texts by column.

    Args:
        cells: as in a row of ``RUNS.csv``.
        where: what errors call its place.
        folder: what ``lengths_file`` and the file of a device are relative to.
        lengths, arrival_s: of the single requests, where known.
        window: the part that was measured.
        notes: what a reader of its figures should know.

    Raises:
        UsageError: a cell is wrong, or one that must be there is not.
    """
    values = {name: _cell(cells, name, column, where) for name, column in SETTINGS.items()}
    values["lengths_file"] = folder / values["lengths_file"] if values["lengths_file"] else None
    values["model"] = named_model(values["model"]) or values["model"]
    try:
        values["device"], spec = device_named(values["device"], folder)
    except SimslmError as error:
        raise UsageError(f"device: {error}", where=where) from None
    figures = {name: _cell(cells, name, FIGURE, where) for name in MEASURED}
    measured = {name: figure for name, figure in figures.items() if figure is not None}
    if values["replicas"] > 1 and values["sharing"] == "none":
        _refuse(where, "sharing", f"{values['replicas']} replicas cannot share a device by none", "say how")
    if values["arrivals"] == "recorded" and arrival_s is None and values["lengths_file"] is None:
        _refuse(
            where, "arrivals", "no arrival times are recorded", "name a lengths_file with a column arrival_s"
        )
    return MeasuredRun(
        **values,
        measured=measured,
        where=where,
        lengths=lengths,
        arrival_s=arrival_s if values["arrivals"] == "recorded" else None,
        device_spec=spec,
        window=window,
        notes=tuple(notes),
    )


def _cell(cells: Mapping[str, str], name: str, column: Column, where: str) -> Any:
    text = (cells.get(name) or "").strip()
    if not text:
        if column.required:
            _refuse(where, name, f"is {'empty' if name in cells else 'missing'}", f"give {column.expected}")
        return column.blank
    try:
        return column.read(text)
    except ValueError:
        shown = repr(text if len(text) <= 60 else f"{text[:57]}...")
        raise UsageError(f"{name}: expected {column.expected}, found {shown}", where=where) from None


def _refuse(where: str, column: str, what: str, remedy: str) -> NoReturn:
    raise UsageError(f"{column}: {what}", where=where, remedy=remedy)


def _rows(path: Path, settings: Mapping[str, str]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and line number and cells of each row that is not blank."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            no_cells: list[str] = []
            header = [name.strip() for name in next(reader, no_cells)]
            _check_header(path, header, settings)
            rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except FileNotFoundError:
        raise UsageError("no such file", where=str(path), remedy="check the path") from None
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", where=str(path)) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot be read as CSV in UTF-8 ({error})", where=str(path)) from None
    if not rows:
        raise UsageError("has no rows", where=str(path), remedy="write one for every run")
    return header, rows


def _cells(header: Sequence[str], row: Sequence[str], where: str) -> dict[str, str]:
    if len(row) != len(header):
        raise UsageError(
            f"expected {len(header)} cells, found {len(row)}",
            where=where,
            remedy="write one for every column of the header",
        )
    return dict(zip(header, row, strict=True))


def _check_header(path: Path, header: list[str], settings: Mapping[str, str]) -> None:
    """All required columns are there, none twice, and none is a known one misspelt."""
    where = f"{path}:1"
    for name in header:
        if name and header.count(name) > 1:
            _refuse(where, name, "is there twice", "remove one")
    others = [name for name in header if name not in SETTINGS and name not in MEASURED]
    for name, column in SETTINGS.items():
        if column.required and name not in header and name not in settings:
            _refuse(where, name, f"no such column{nearest(name, others)}", f"add it: {column.expected}")
    absent = [name for name in (*SETTINGS, *MEASURED) if name not in header]
    for name in others:
        if meant := get_close_matches(name, absent, n=1, cutoff=MISSPELT):
            _refuse(where, name, f"unknown column (did you mean {meant[0]!r}?)", "rename it or remove it")
