# ruff: noqa: T201 (a program prints)
"""Measures the speed of the simulation and writes ``reports/benchmark.md``.

Every work runs in a process of its own. What it took is printed and reported, not judged by the exit code; but
the counts of work done (events, iterations) must be those of ``expected.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from measuring import Figures, help_s, measure
from page import page
from replaying import REPLAYED, Replayed, measure_replaying
from streaming import Streamed, measure_streaming
from works import WORKS, Work

from simslm.metrics.files import write_whole

EXPECTED = Path(__file__).with_name("expected.json")
STREAMING = "streaming"
REPLAYING = "replaying"
REPORT = Path(__file__).parents[2] / "reports" / "benchmark.md"


def main() -> int:
    options = _options()
    chosen = [work for work in WORKS if _wanted(work, options)]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        measured = {}
        for work in chosen:
            measured[work.name] = pool.submit(measure, work).result()
            _say(work, measured[work.name])
        streamed = None
        if options.full or options.only == STREAMING:
            streamed = pool.submit(measure_streaming).result()
            _say_streamed(streamed)
        replayed = []
        if options.full or options.only == REPLAYING:
            for requests in (REPLAYED // 10, REPLAYED):
                replayed.append(pool.submit(measure_replaying, requests).result())
                _say_replayed(replayed[-1])
    counts = {name: figures.counts for name, figures in measured.items()}
    if options.update:
        _write(EXPECTED, json.dumps(_expected() | counts, indent=2) + "\n")
    if not options.only:
        _write(REPORT, page(measured, help_s(), streamed, replayed))
        print(REPORT.relative_to(Path.cwd()) if REPORT.is_relative_to(Path.cwd()) else REPORT)
    return _differences(counts)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="with the works that take minutes")
    parser.add_argument("--update", action="store_true", help="take this run's counts as the expected ones")
    parser.add_argument(
        "--only",
        choices=[*(work.name for work in WORKS), STREAMING, REPLAYING],
        help="one work alone; writes no report",
    )
    return parser.parse_args()


def _wanted(work: Work, options: argparse.Namespace) -> bool:
    return work.name == options.only if options.only else options.full or not work.full


def _say(work: Work, figures: Figures) -> None:
    opened = "no browser" if figures.page.open_s is None else f"{figures.page.open_s:.2f} s"
    print(
        f"{work.name}: {figures.simulate_s:.3f} s, {figures.rate:,.0f} requests/s, bare SimPy "
        f"{figures.bare_rate:,.0f}/s, ratio {figures.ratio:.2%}, {figures.events:,} events, "
        f"{figures.iterations:,} iterations, with figures {figures.observe_s:.2f} s, "
        f"with files {figures.write_s:.2f} s, peak {figures.peak_bytes / 2**20:,.0f} MiB, "
        f"page {figures.page.size_bytes / 1e6:.1f} MB made in {figures.page.make_s:.1f} s, opened in {opened}",
        flush=True,
    )


def _say_streamed(streamed: Streamed) -> None:
    print(
        f"{STREAMING}: {streamed.requests:,} requests, written in {streamed.write_s:.1f} s, read in "
        f"{streamed.read_s:.1f} s, {streamed.file_bytes / 2**20:,.0f} MiB of file, peak "
        f"{streamed.peak_bytes / 2**20:,.0f} MiB ({streamed.least_bytes / 2**20:,.0f} MiB for a hundredth of them)",
        flush=True,
    )


def _say_replayed(replayed: Replayed) -> None:
    print(
        f"{REPLAYING}: {replayed.requests:,} requests, simulated with files in {replayed.simulate_s:.1f} s, "
        f"{replayed.requests / replayed.simulate_s:,.0f} requests/s, in {replayed.rows:,} rows, page made in "
        f"{replayed.page_s:.1f} s, {replayed.file_bytes / 2**20:,.0f} MiB of files, peak "
        f"{replayed.peak_bytes / 2**20:,.0f} MiB",
        flush=True,
    )


def _expected() -> dict[str, dict[str, int]]:
    return json.loads(EXPECTED.read_text(encoding="utf-8")) if EXPECTED.exists() else {}


def _differences(counts: dict[str, dict[str, int]]) -> int:
    """Prints every count that is not as expected; 1 if there is one."""
    expected = _expected()
    wrong = [
        f"{name}: {count:,} {what}, expected {expected.get(name, {}).get(what, 'none on record')}"
        for name, found in counts.items()
        for what, count in found.items()
        if expected.get(name, {}).get(what) != count
    ]
    for line in wrong:
        print(f"different work: {line}", file=sys.stderr)
    if wrong:
        print("if that is meant, record it with --update", file=sys.stderr)
    return int(bool(wrong))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
