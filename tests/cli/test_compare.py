"""``simslm compare``: what it answers, where the page goes, and what a condition does to the exit code."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def runs(simslm, scenario, here):
    """A scenario, the same with a batch of one, and the same under another seed."""
    for name, more in (
        ("a", ()),
        ("b", ("--set", "deployment.engine.max_num_seqs=1")),
        ("c", ("--seed", "7")),
    ):
        made = simslm("simulate", scenario, "-o", f"runs/{name}", "--set", "workload.num_requests=200", *more)
        assert made.code == 0, made.err
    return here / "runs"


@pytest.mark.slow
def test_it_answers_and_says_why_and_how_sure(simslm, runs):
    ended = simslm("compare", "runs/a", "runs/b")
    assert (ended.code, ended.err) == (0, "")
    first, *_ = ended.out.splitlines()
    assert first.startswith("b against a: Worse: TTFT mean +")
    assert "deployment.engine.max_num_seqs 8 → 1" in ended.out
    assert "paired request by request: the same 200 requests arrived in both" in ended.out
    assert "Heidelberger and Lewis 1984" in ended.out
    said = " ".join(ended.out.split())
    assert "TTFT p99, TPOT mean" not in said
    assert "TTFT p95, TTFT p99" in said
    assert "fewer than 100 requests beyond it: run more requests or several seeds" in said
    assert ended.out.splitlines()[-1] == "page: runs/comparison.html"
    assert (runs / "comparison.html").stat().st_size > 10_000


@pytest.mark.slow
def test_json_has_every_figure(simslm, runs):
    shown = json.loads(simslm("compare", "runs/a", "runs/b", "runs/c", "--json").out)
    assert shown["baseline"] == {
        "label": "a, c",
        "runs": ["runs/a", "runs/c"],
        "seeds": [3, 7],
        "requests": {"arrived": 400, "finished": 400, "rejected": 0, "failed": 0},
    }
    assert [each["label"] for each in shown["contrasts"]] == ["b"]
    assert shown["contrasts"][0]["pairing"]["kind"] == "requests"
    assert "1 run under other seeds left out" in shown["contrasts"][0]["pairing"]["why"]
    before, after = (json.loads((runs / name / "summary.json").read_text()) for name in "ab")
    figure = shown["contrasts"][0]["figures"]["ttft_s.mean"]
    assert figure["delta"] == pytest.approx(after["ttft_s"]["mean"] - before["ttft_s"]["mean"])
    assert figure["interval"][0] <= figure["delta"] <= figure["interval"][1]
    assert shown["failed"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("conditions", "code"),
    [
        (["ttft_s.mean > +5%"], 1),
        (["ttft_s.mean > +100000%"], 0),
        (["ttft_s.mean < -5%"], 0),
        (["throughput.requests_per_s < -90%", "ttft_s.mean > +0.0001"], 1),
        (["requests.arrived != 200"], 0),
    ],
)
def test_a_condition_decides_the_exit_code(simslm, runs, conditions, code):
    ended = simslm(
        "compare", "runs/a", "runs/b", *(word for text in conditions for word in ("--fail-on", text))
    )
    assert ended.code == code
    assert ended.out
    assert ("--fail-on" in ended.err) == bool(code)


@pytest.mark.slow
def test_seeds_alone_are_different_requests(simslm, runs):
    ended = simslm("compare", "runs/a", "runs/c")
    assert ended.code == 0
    assert "seed 3 → 7" in ended.out
    assert "unpaired: the requests differ" in ended.out


@pytest.mark.slow
def test_a_condition_that_fails_names_the_run_and_the_figures(simslm, runs):
    complaint = simslm("compare", "runs/a", "runs/c", "runs/b", "--fail-on", "queue_s.mean > +100%").complaint
    assert "b: queue_s.mean is " in complaint


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("runs/a",), "at least two"),
        (("runs/a", "runs/none"), "runs/none"),
        (("runs/a", "runs/b", "--fail-on", "ttft.p99 > +5%"), "did you mean 'ttft_s.p99'"),
        (("runs/a", "runs/b", "--fail-on", "ttft_s.p99 > 5%"), "has no sign"),
        (
            ("runs/a", "runs/b", "--fail-on", "economics.usd_per_million_output_tokens > +5%"),
            "not known of both",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_written(simslm, runs, arguments, said):
    ended = simslm("compare", *arguments)
    assert ended.code == 2
    assert said in ended.complaint
    assert ended.out == ""
    assert not (runs / "comparison.html").exists()


@pytest.mark.slow
def test_the_page_goes_where_it_is_told_to(simslm, runs, here):
    (runs / "b").rename(here / "elsewhere")
    ended = simslm("compare", "runs/a", "elsewhere", "-o", "both.html")
    assert ended.out.splitlines()[-1] == "page: both.html"
    assert simslm("compare", "runs/a", "elsewhere").out.splitlines()[-1] == "page: comparison.html"


@pytest.fixture
def shedding(simslm, scenario, here):
    """Twice what a batch of one can serve, with and without turning requests away."""
    for name, more in (
        ("waits", ()),
        ("sheds", ("--set", "deployment.engine.admission={policy: limits, max_queue: 2}")),
    ):
        made = simslm(
            "simulate", scenario, "-o", f"runs/{name}", "--no-intervals", "--set", "workload.num_requests=1000",
            "--set", "workload.arrivals={process: all-at-once}", "--set", "deployment.engine.max_num_seqs=1", *more,
        )  # fmt: skip
        assert made.code == 0, made.err
    return here / "runs"


@pytest.mark.slow
def test_turning_requests_away_is_no_improvement(simslm, shedding):
    ended = simslm("compare", "runs/waits", "runs/sheds")
    served = json.loads((shedding / "sheds" / "summary.json").read_text())["requests"]["finished"]
    assert 0 < served < 1000
    said = " ".join(ended.out.split())
    assert f"sheds against waits: sheds served {served:,} of 1,000 requests: {1000 - served:,} (" in said
    assert "waits served all 1,000." in said
    assert "Better: " not in said
    assert "∞" in said
    assert "latency infinite (∞)" in said
    shown = json.loads(simslm("compare", "runs/waits", "runs/sheds", "--json").out)["contrasts"][0]
    p99 = shown["figures"]["ttft_s.p99"]
    assert (p99["value"], p99["infinite"], p99["delta"]) == (None, ["value"], None)
    assert shown["requests"]["rejected"] == 1000 - served


@pytest.mark.slow
@pytest.mark.parametrize("path", ["ttft_s.p99", "ttft_s.mean", "e2e_s.p90", "queue_s.max"])
def test_a_gate_does_not_pass_what_turns_requests_away(simslm, shedding, path):
    ended = simslm("compare", "runs/waits", "runs/sheds", "--fail-on", f"{path} > +5%")
    assert ended.code == 1
    assert f"{path} is ∞ after " in ended.complaint
    assert "sheds served " in ended.complaint
    assert simslm("compare", "runs/sheds", "runs/waits", "--fail-on", f"{path} > +5%").code == 0
    assert simslm("compare", "runs/sheds", "runs/sheds", "--fail-on", f"{path} > +5%").code == 0
