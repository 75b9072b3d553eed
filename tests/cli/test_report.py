"""``simslm report``: pages from files alone, of one run and of several, and of what is no run."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def runs(simslm, scenario, here) -> tuple[Path, Path]:
    for name, rate in (("one", 1), ("two", 4)):
        options = ("--set", f"workload.arrivals.rate_rps={rate}", "--set", f"name={name}")
        assert simslm("simulate", scenario, *options).code == 0
    return Path("runs/one"), Path("runs/two")


@pytest.mark.slow
def test_the_page_of_a_run_is_drawn_again_to_the_same_bytes(simslm, runs):
    page = runs[0] / "report.html"
    drawn = page.read_bytes()
    page.unlink()
    ended = simslm("report", runs[0])
    assert (ended.code, ended.out, ended.err) == (0, f"{page}\n", "")
    assert page.read_bytes() == drawn


@pytest.mark.slow
def test_two_runs_on_one_page(simslm, runs):
    ended = simslm("report", *runs, "-o", "both.html")
    assert (ended.code, ended.out) == (0, "both.html\n")
    text = Path("both.html").read_text(encoding="utf-8")
    assert "one" in text
    assert "two" in text
    assert simslm("report", *runs).out == "runs/report.html\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["summary.json", "manifest.json", "requests.parquet", "iterations.parquet"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_run_without_a_file_is_refused(simslm, runs, name, damage):
    path = runs[0] / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:40])
    ended = simslm("report", *runs, "-o", "page.html")
    assert ended.code == 2
    assert str(path) in ended.complaint
    assert not Path("page.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("nowhere/page.html", "nowhere/page.html"),
        ("runs", "runs"),
        ("runs/one/summary.json/page.html", "runs/one/summary.json"),
    ],
)
def test_a_page_that_cannot_be_written(simslm, runs, place, named):
    ended = simslm("report", runs[0], "-o", place)
    assert ended.code == 2
    assert ended.complaint.startswith(f"{named}: ")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["nowhere", "small.yaml", "runs"])
def test_what_is_no_run(simslm, runs, what):
    ended = simslm("report", what)
    assert ended.code == 2
    assert what in ended.complaint
