"""``simslm workload``: show, make and fit, from files, presets and scenarios."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pyarrow import parquet

from simslm.workload.readers import read_trace


@pytest.fixture
def trace(here):
    """A thousand requests of a little office."""
    rng = np.random.default_rng(0)
    arrivals = np.cumsum(rng.exponential(0.5, 1000))
    rows = [f"{at:.6f},{rng.integers(1, 300)},{rng.integers(1, 90)}" for at in arrivals]
    path = here / "office.csv"
    path.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *rows]) + "\n")
    return path


def test_a_trace_is_shown(simslm, trace):
    shown = simslm("workload", "show", trace)
    assert (shown.code, shown.err) == (0, "")
    assert "office.csv: csv: simslm's own" in shown.out
    assert "1,000 in" in shown.out
    found = json.loads(simslm("workload", "show", trace, "--json").out)
    assert found["requests"] == 1000
    assert found["gap_cv"] == pytest.approx(1, abs=0.1)
    assert set(found["prompt_tokens"]) == {"min", "mean", "p50", "p90", "p95", "p99", "max"}


def test_what_was_dropped_is_said(simslm, here):
    rows = ["5,ChatGPT,472,18,490,x", "45,ChatGPT,0,0,0,x", "50,ChatGPT,3,4,7,x"]
    (here / "burst.csv").write_text(
        "\n".join(["Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type", *rows])
    )
    shown = simslm("workload", "show", "burst.csv")
    assert "1 rows dropped: failed (no response)" in shown.out
    assert json.loads(simslm("workload", "show", "burst.csv", "--json").out)["dropped"] == {
        "failed (no response)": 1
    }


def test_a_preset_and_a_scenario_are_shown(simslm, scenario):
    shown = simslm("workload", "show", "azure-2023-code", "--set", "workload.num_requests=500")
    assert shown.code == 0
    assert "azure-2023-code: Code completion" in shown.out
    assert "500 in" in shown.out
    shown = simslm("workload", "show", scenario)
    assert "30 in" in shown.out
    other = simslm("workload", "show", scenario, "--seed", 9)
    assert other.out != shown.out


def test_lengths_alone_are_shown_without_times(simslm):
    shown = simslm("workload", "show", "arxiv-summarization")
    assert shown.code == 0
    assert "CV of gaps" not in shown.out


def test_a_page_is_written_whole(simslm, here, trace):
    shown = simslm("workload", "show", trace, "-o", "pages/office.html")
    assert (shown.code, shown.err) == (0, "page: pages/office.html\n")
    page = (here / "pages" / "office.html").read_text()
    for words in (
        "office.csv",
        "CV of gaps",
        'id="rate"',
        'id="gaps"',
        'id="prompt-tokens"',
        "simslm workload show",
    ):
        assert words in page
    assert "default-src 'none'" in page
    assert [path.name for path in (here / "pages").iterdir()] == ["office.html"]
    again = simslm("workload", "show", trace, "-o", "pages/office.html")
    assert again.code == 0
    assert (here / "pages" / "office.html").read_text() == page


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_what_is_made_can_be_replayed(simslm, here, scenario, ending):
    more = ["--set", "workload.timeout_s=9", "--set", "workload.priorities=[{value: 1, share: 1}]"]
    made = simslm("workload", "make", scenario, "-o", f"made.{ending}", *more)
    assert (made.code, made.out, made.err) == (0, f"made.{ending}: 30 requests\n", "")
    recording, name = read_trace(here / f"made.{ending}")
    assert name == ending
    assert set(recording.patience_s) == {9.0}
    assert set(recording.priority) == {1}
    run = simslm("simulate", scenario, "-o", "drawn", "--no-intervals", *more)
    replayed = simslm("simulate", scenario, "-o", "replayed", "--no-intervals",
                      "--set", f"workload={{replay: {{path: made.{ending}}}}}")  # fmt: skip
    assert run.code == replayed.code == 0
    tables = [parquet.read_table(here / place / "requests.parquet") for place in ("drawn", "replayed")]
    assert tables[0].column("prompt_tokens").equals(tables[1].column("prompt_tokens"))
    offset = np.diff([table.column("arrival_s").to_numpy() for table in tables], axis=0)[0]
    assert offset == pytest.approx(offset[0], abs=1e-9)


@pytest.mark.slow
def test_a_preset_is_made_and_shown_again(simslm, here):
    made = simslm("workload", "make", "ragpulse", "-o", "rag.parquet", "--set", "workload.num_requests=2000")
    assert made.code == 0
    assert parquet.read_metadata(here / "rag.parquet").num_rows == 2000
    assert "2,000 in" in simslm("workload", "show", "rag.parquet").out


def test_what_a_file_does_not_hold_is_said(simslm, here, scenario):
    prefixes = "workload.prefixes={count: 3, tokens: 32}"
    made = simslm("workload", "make", scenario, "-o", "made.csv", "--set", prefixes)
    assert made.code == 0
    assert made.err == "note: prefixes are not in the file; simulate the scenario itself for those\n"


@pytest.mark.slow
def test_a_preset_is_fitted_written_and_used(simslm, here, scenario, trace):
    fitted = simslm(
        "workload",
        "fit",
        trace,
        "-o",
        "mine.yaml",
        "--what",
        "An office",
        "--source",
        "licence=mine",
        "--halves",
    )
    assert fitted.code == 0
    assert "prompt tokens, KS distance" in fitted.out
    assert "first half → second half" in fitted.out
    assert fitted.err == "preset: mine.yaml\npage: mine.html\n"
    page = (here / "mine.html").read_text()
    assert "A preset fitted to office.csv" in page
    run = simslm("simulate", scenario, "--set", "workload.preset=mine.yaml", "--set", "workload.num_requests=20",
                 "--no-intervals", "--json")  # fmt: skip
    assert json.loads(run.out)["requests"]["arrived"] == 20
    assert "mine: An office" in simslm("workload", "show", "mine.yaml").out


def test_a_fit_as_json(simslm, trace):
    found = json.loads(simslm("workload", "fit", trace, "--halves", "--json").out)
    assert found["workload"]["num_requests"] == 1000
    assert len(found["halves"]) == 2
    assert found["fit"]["prompt_tokens_ks"] < 0.02


@pytest.mark.slow
def test_workloads_are_listed(simslm):
    shown = simslm("list", "workloads")
    assert "azure-2023-conv" in shown.out
    assert "CC-BY-4.0" in shown.out
    assert {row["workload"] for row in json.loads(simslm("list", "workloads", "--json").out)} > {"ragpulse"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "azure-2023-con"), "no preset 'azure-2023-con' (did you mean 'azure-2023-conv'?)"),
        (("show", "nothing.csv"), "no such file"),
        (("show", "office.csv", "--format", "azure-2022"), "no format 'azure-2022' (did you mean 'azure-202"),
        (("show", "office.csv", "--format", "vidur"), "the header has no column arrived_at"),
        (("show", "office.csv", "--seed", "3"), "--set and --seed are for presets and scenarios"),
        (("make", "office.csv", "-o", "x.csv"), "neither a preset nor a scenario"),
        (("make", "ragpulse", "-o", "x.txt"), ".txt is no kind of file"),
        (("make", "small.yaml", "-o", "x.csv", "--set", "workload.arrivals={process: closed-loop, concurrency: 2}"),
         "have no times that a file could hold"),
        (("fit", "office.csv", "-o", "preset"), "let its name end in .yaml"),
        (("fit", "office.csv", "--source", "licence"), "expected key=value, got 'licence'"),
        (("fit", "short.csv"), "1 requests are too few"),
        (("fit", "nothing.csv"), "no such file"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_clear_error(simslm, here, trace, scenario, arguments, words):
    (here / "short.csv").write_text("arrival_s,prompt_tokens,output_tokens\n1,2,3\n")
    before = {path.name for path in here.iterdir()}
    ended = simslm("workload", *arguments)
    assert ended.code == 2
    assert words in ended.complaint
    assert {path.name for path in here.iterdir()} == before
