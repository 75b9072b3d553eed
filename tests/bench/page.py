"""The figures as a page of Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from measuring import Figures
from replaying import Replayed
from streaming import Streamed
from works import BATCHES, BUSY, CAPS, LIGHT, MILLION, NUMBERS, Work

from simslm.cli.env import environment
from simslm.units import GIB

Measured = Mapping[str, Figures]

REFERENCE_RATE = 1.7e6
"""Bare SimPy timeouts per second where bounds in seconds hold; elsewhere they scale."""

MOST_GROWTH = 1.2

INTRODUCTION = f"""\
# Speed of the simulation

Written by `make bench`; the rows with a million requests by `python tests/bench/speed.py --full`. *Simulation* is
the event loop with all logs on, *with figures* the same with tables, percentiles and energy made of the logs, *with
files* with Parquet and JSON written too; all in processor time. *Bare SimPy* is how many timeouts per second the
same machine does with nothing else to do, measured just before and after each run. The *ratio*, requests per second
over it, is what survives a change of machine; bounds in seconds hold at {REFERENCE_RATE / 1e6:g} million timeouts per
second. *Events* are those SimPy processed, *iterations* the rows of the iteration log: both follow from the scenario
and its seed alone, and a run in which they differ from `tests/bench/expected.json` fails.
"""


def page(
    measured: Measured, help_s: float, streamed: Streamed | None = None, replayed: Sequence[Replayed] = ()
) -> str:
    """The whole report; a work that was not run has no row."""
    parts = [
        INTRODUCTION,
        _machine(),
        _speeds(measured),
        _streaming(streamed),
        _replaying(replayed),
        "## Growth\n\nTime per request in bare SimPy timeouts, so that the machine's moods cancel out.\n",
        _growth(measured, NUMBERS),
        _growth(measured, CAPS),
        PAGES,
        _pages(measured),
        f"## Start\n\n`simslm --help` takes {help_s:.3f} s, median of five (bound 0.2 s: {_verdict(help_s < 0.2)}).\n",
    ]
    return "\n".join(parts)


def _machine() -> str:
    found = environment()
    packages = ", ".join(f"{name} {found['packages'][name]}" for name in ("simpy", "numpy", "pyarrow"))
    date = datetime.now(UTC).date().isoformat()
    return f"{date}: {found['processor']}, {found['cores']} cores, Python {found['python']}, {packages}.\n"


def _verdict(reached: bool) -> str:
    return "reached" if reached else "**missed**"


def _there(seconds: float, figures: Figures) -> float:
    """What would have taken so long where bare SimPy has the reference rate."""
    return seconds * figures.bare_rate / REFERENCE_RATE


BOUNDS: Sequence[tuple[Work, str, Callable[[Figures], bool]]] = (
    (BUSY, "ratio ≥ 3 %", lambda of: of.ratio >= 0.03),
    (LIGHT, "ratio ≥ 2 %", lambda of: of.ratio >= 0.02),
    (BATCHES, "2 s", lambda of: _there(of.simulate_s, of) < 2),
    (MILLION, "60 s with files, 1 GiB", lambda of: _there(of.write_s, of) < 60 and of.peak_bytes < GIB),
)


def _speeds(measured: Measured) -> str:
    head = ("work", "simulation", "requests/s", "bare SimPy/s", "ratio", "bound", "with figures", "with files",
            "peak memory", "events", "iterations")  # fmt: skip
    rows = [
        (
            work.what,
            f"{of.simulate_s:.2f} s",
            f"{of.rate:,.0f}",
            f"{of.bare_rate:,.0f}",
            f"{of.ratio:.2%}",
            f"{bound}: {_verdict(reached(of))}",
            f"{of.observe_s:.2f} s",
            f"{of.write_s:.2f} s",
            f"{of.peak_bytes / GIB:.2f} GiB",
            f"{of.events:,}",
            f"{of.iterations:,}",
        )
        for work, bound, reached in BOUNDS
        if (of := measured.get(work.name))
    ]
    return _table(head, rows)


def _streaming(streamed: Streamed | None) -> str:
    """Requests to a file and back; empty where that was not measured."""
    if streamed is None:
        return ""
    each = ((streamed.write_s, "generated and written"), (streamed.read_s, "read"))
    rates = "; ".join(f"{what} at {streamed.requests / took / 1e6:.1f} million/s" for took, what in each)
    return (
        "## Requests in files\n\n"
        f"{streamed.requests:,} requests to Parquet ({streamed.file_bytes / GIB:.2f} GiB) and back: {rates}. Peak "
        f"memory {streamed.peak_bytes / GIB:.2f} GiB, and {streamed.least_bytes / GIB:.2f} GiB for a hundredth of "
        "them.\n"
    )


def _replaying(replayed: Sequence[Replayed]) -> str:
    """Requests simulated from a file; empty where that was not measured."""
    if not replayed:
        return ""
    rows = [
        f"| {each.requests:,} | {each.requests / each.simulate_s:,.0f} | {each.simulate_s:.0f} s | {each.rows:,} "
        f"| {each.file_bytes / GIB:.2f} GiB | {each.page_s:.1f} s | {each.peak_bytes / GIB:.2f} GiB |"
        for each in replayed
    ]
    head = "| requests | simulated per second | in | rows held | files written | page made in | peak memory |"
    rule = "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    return "\n".join(
        [
            "Simulated from Parquet with all files and the page, short prompts and answers (64 and 8 tokens) on one "
            "replica at 85 % load, in processor time:\n",
            head,
            rule,
            *rows,
            "",
        ]
    )


PAGES = """\
## The page of a run

Made of the files, in processor time; opened in Chromium until all is drawn, on the wall.
"""

MOST_PAGE_BYTES = 8_000_000
MOST_OPEN_S = 3.0


def _pages(measured: Measured) -> str:
    rows = [
        (
            work.what,
            f"{of.page.make_s:.1f} s",
            f"{of.page.peak_bytes / GIB:.2f} GiB",
            f"{of.page.size_bytes / 1e6:.1f} MB",
            _verdict(of.page.size_bytes < MOST_PAGE_BYTES),
            "no browser" if of.page.open_s is None else f"{of.page.open_s:.2f} s",
            "not measured" if of.page.open_s is None else _verdict(of.page.open_s < MOST_OPEN_S),
        )
        for work in (BUSY, MILLION)
        if (of := measured.get(work.name))
    ]
    head = ("work", "made in", "peak memory", "size", "bound 8 MB", "opened in", "bound 3 s")
    return _table(head, rows)


def _growth(measured: Measured, works: Sequence[Work]) -> str:
    """Time per request of each work, against the first."""
    found = [(work, measured[work.name]) for work in works if work.name in measured]
    if not found:
        return ""
    first = 1 / found[0][1].ratio
    rows = [
        (
            work.what,
            f"{1 / of.ratio:.1f}",
            f"{1 / of.ratio / first:.2f}",
            _verdict(1 / of.ratio / first <= MOST_GROWTH),
            f"{1e6 * of.simulate_s / of.requests:.1f} µs",
            f"{of.events / of.requests:.2f}",
            f"{of.iterations / of.requests:.2f}",
            f"{of.peak_bytes / GIB:.2f} GiB",
        )
        for work, of in found
    ]
    head = ("work", "timeouts per request", "against the first", f"bound {MOST_GROWTH:g}", "time per request",
            "events per request", "iterations per request", "peak memory")  # fmt: skip
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
