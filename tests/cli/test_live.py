"""``simslm validate live``: a model small enough to be measured and served within seconds, from end to end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from simslm.cli import validate_live  # noqa: E402
from simslm.cli.interruption import Interruption  # noqa: E402
from simslm.errors import DeviceError  # noqa: E402

pytestmark = pytest.mark.slow

SCENARIO = """\
name: tiny
model: {family: llama, num_layers: 1, hidden_size: 32, num_heads: 2, num_kv_heads: 1, intermediate_size: 48,
        vocab_size: 97, max_position_embeddings: 96}
device: cpu
dtype: fp32
cost: {roofline: {}}
workload:
  num_requests: 12
  arrivals: {process: poisson, rate_rps: 100}
  prompt_tokens: {dist: uniform, low: 4, high: 30}
  output_tokens: {dist: uniform, low: 1, high: 8}
deployment:
  engine: {max_num_seqs: 4, max_num_batched_tokens: 32, num_gpu_blocks: 24}
"""
SIDES = ("requests.parquet", "requests_live.parquet", "iterations.parquet", "iterations_live.parquet")
TWO = ("--set", "deployment.replicas_per_device=2", "--set", "deployment.sharing=streams")


@pytest.fixture
def tiny(here, monkeypatch):
    """The scenario's file; what is measured is measured with few repeats."""
    threads = torch.get_num_threads()
    monkeypatch.setattr("profiler.specification.REPEATS", {"quick": 1, "full": 1})
    monkeypatch.setattr("profiler.visits.warm_up", lambda call: call())
    monkeypatch.setattr("profiler.measure.window.WINDOW_S", 0.05)
    monkeypatch.setattr("profiler.serving.live.warm_up", lambda call: len([call()]))
    path = here / "tiny.yaml"
    path.write_text(SCENARIO)
    yield path
    torch.set_num_threads(threads)


def test_both_sides_of_every_run_are_written(simslm, tiny, here):
    ended = simslm("validate", "live", tiny, "--grid", "quick", "--load", "0.4,0.8", "--repeats", 2,
                   "--threads", 1, "-o", "out")  # fmt: skip
    assert ended.code == 0, ended.err
    assert "4 runs served in real time and simulated" in ended.out
    assert "noise of repeats" in ended.out
    assert ended.out.count("the iterations that ran cost") == 2
    assert "serving load 0.8, repeat 2 of 2" in ended.err
    values = json.loads((here / "out" / "fidelity.json").read_text())
    names = [f"load {load}, repeat {number}" for load in ("0.4", "0.8") for number in (1, 2)]
    assert [row["run"] for row in values["rows"]] == names
    assert values["serving"]["threads"] == 1
    assert values["serving"]["engine"] == values["rows"][0]["setting"]["engine"]
    assert values["traces"][0]["engine"] == values["serving"]["engine"]
    assert values["command"].startswith("simslm validate live")
    assert "Error beside noise" in (here / "out" / "report.html").read_text()
    low, high = values["repeats"]
    assert (low["name"], low["load"], low["runs"]) == ("load 0.4", 0.4, names[:2])
    assert high["rate_rps"] == pytest.approx(2 * low["rate_rps"])
    for load in values["repeats"]:
        place = here / "out" / load["name"].replace(" ", "-")
        assert {path.name for path in place.iterdir()} >= {*SIDES, "summary.json", "manifest.json"}
        _holds(values, load, place)


def _holds(values, load, place):
    """The figures of one load are those of the files beside them."""
    requests, served, iterations, ran = (pd.read_parquet(place / name) for name in SIDES)
    assert served.groupby("repeat").size().tolist() == [len(requests)] * 2
    for _, one in served.groupby("repeat"):
        for name in ("request_id", "arrival_s", "prompt_tokens", "output_tokens", "status"):
            assert (one[name].to_numpy() == requests[name].to_numpy()).all(), name
        assert (one.arrival_s.to_numpy() <= one.first_scheduled_s.to_numpy()).all()
        assert (one.first_token_s < one.finish_s + 1e-12).all()
    assert iterations.prefill_tokens.sum() == requests.prompt_tokens.sum()
    assert ran.groupby("repeat").prefill_tokens.sum().tolist() == [requests.prompt_tokens.sum()] * 2
    tokens = requests.output_tokens.sum()
    for number, name in enumerate(load["runs"], 1):
        (row,) = [row for row in values["rows"] if row["run"] == name]
        mine, steps = served[served.repeat == number], ran[ran.repeat == number]
        duration = (steps.start_s + steps.duration_s).max() - mine.arrival_s.min()
        assert row["measured"]["duration_s"] == pytest.approx(duration)
        assert row["measured"]["output_tokens_per_s"] == pytest.approx(tokens / duration)
        assert row["measured"]["ttft_p50_s"] == pytest.approx(mine.ttft_s.median())
        assert row["measured"]["tpot_p50_s"] == pytest.approx(mine.tpot_s.median())
        assert row["simulated"]["ttft_p50_s"] == pytest.approx(requests.ttft_s.median())
        assert row["error"]["e2e_p99_s"] == pytest.approx(
            np.percentile(requests.e2e_s, 99) / np.percentile(mine.e2e_s, 99) - 1
        )
    measured = served.groupby("repeat").ttft_s.median()
    assert load["metrics"]["ttft_p50_s"] == pytest.approx(
        {
            "measured": measured.mean(),
            "simulated": requests.ttft_s.median(),
            "error": requests.ttft_s.median() / measured.mean() - 1,
            "noise": measured.std() / measured.mean(),
        }
    )
    running = (ran.running * ran.duration_s).groupby(ran.repeat).sum() / ran.duration_s.groupby(
        ran.repeat
    ).sum()
    assert load["mean_running_seqs"]["measured"] == pytest.approx(running.mean())


def test_the_scenarios_own_rate_is_kept_and_a_trace_can_be_given(simslm, tiny, here):
    first = simslm("validate", "live", tiny, "--grid", "quick", "--repeats", 1, "-o", "one")
    assert first.code == 0, first.err
    again = simslm("validate", "live", tiny, "--trace", "one/trace", "--repeats", 1, "--json", "-o", "two",
                   "--fail-on", "tpot_p50_s.max_abs_error >= 0")  # fmt: skip
    assert again.code == 1
    assert "--fail-on" in again.err
    shown = json.loads(again.out)
    (load,) = shown["repeats"]
    assert (load["name"], load["load"], load["rate_rps"]) == ("as stated", None, 100)
    assert load["metrics"]["duration_s"]["noise"] is None
    assert sorted(path.name for path in (here / "two").iterdir()) == [
        "as-stated",
        "fidelity.json",
        "report.html",
    ]


def test_a_trace_is_measured_only_as_far_as_the_scenario_reaches(simslm, tiny, here):
    ended = simslm("validate", "live", tiny, "--repeats", 1, "-o", "out")
    assert ended.code == 0, ended.err
    rows = pd.read_parquet(here / "out" / "trace" / "iterations.parquet")
    assert sorted(set(rows.decode_seqs)) == [0, 1, 2, 4]
    assert rows.prefill_tokens.max() == 32
    contexts = (rows.decode_ctx_tokens / rows.decode_seqs)[rows.prefill_seqs == 0]
    assert contexts.max() <= 38


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--load", "0.5,fast"), 2, "--load '0.5,fast'"),
        (("--load", "0.5,0.5"), 2, "expected different shares"),
        (("--load", "0"), 2, "above 0"),
        (("--load", "0.5", "--set", "workload.arrivals={process: all-at-once}"), 2, "have none"),
        (("--set", "device=h200", "--device", "cpu"), 2, "is of h200, but cpu is cpu"),
        (("--threads", "100000"), 2, "is more than the"),
        (("--set", "deployment.engine.prefix_caching=true"), 2, "no prefix_caching"),
        (("--set", "deployment.engine.preemption=swap"), 2, "no preemption by swap"),
        (("--set", "workload.timeout_s=5"), 2, "no clients that leave"),
        (("--set", "workload.arrivals={process: closed-loop, concurrency: 3}"), 2, "no closed loop"),
        ((*TWO, "--set", "deployment.sharing=mps"), 2, "mps needs an NVIDIA GPU"),
        ((*TWO, "--threads", str(os.cpu_count())), 2, "for each of 2 replicas is more than the"),
        ((*TWO, "--set", "deployment.router=power-of-two"), 2, "--set deployment.router.policy=round-robin"),
        (("--set", "deployment.num_devices=2"), 2, "one device only"),
        (("--set", "deployment.engine.batching=static"), 2, "padding"),
        (("--set", "deployment.engine.batching=layered-prefill"), 2, "prefill by layers"),
        (("--fail-on", "tpot.max > 1"), 2, "knows no"),
        (("--trace", "nothing"), 3, "nothing"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_is_measured(simslm, tiny, here, options, code, words):
    ended = simslm("validate", "live", tiny, *options, "-o", "out")
    assert ended.code == code
    assert words in ended.complaint
    assert [path.name for path in here.iterdir()] == ["tiny.yaml"]


def test_a_finished_trace_is_not_measured_over(simslm, tiny, here, trace):
    """Rates and an interrupted run would be told by a trace that is not the one being measured."""
    (here / "out").mkdir()
    trace.rename(here / "out" / "trace")
    ended = simslm("validate", "live", tiny, "-o", "out")
    assert ended.code == 2
    assert "--trace out/trace" in ended.complaint
    assert [path.name for path in (here / "out").iterdir()] == ["trace"]


def test_whatever_ends_it_keeps_the_runs_before(simslm, tiny, here, monkeypatch):
    def tell(repeats, load, run):
        if run == 2:
            raise RuntimeError("out of memory")

    monkeypatch.setattr(validate_live, "_tell_run", tell)
    ended = simslm("validate", "live", tiny, "--grid", "quick", "--repeats", 3, "-o", "out")
    assert ended.code == 5
    assert "out of memory" in ended.err
    assert "out holds the 1 runs done by then" in ended.err
    values = json.loads((here / "out" / "fidelity.json").read_text())
    assert [row["run"] for row in values["rows"]] == ["as stated, repeat 1"]


def test_a_device_that_is_not_there_exits_5(simslm, tiny, here):
    ended = simslm("validate", "live", tiny, "--device", f"cuda:{torch.cuda.device_count()}", "-o", "out")
    assert ended.code == 5
    assert [path.name for path in here.iterdir()] == ["tiny.yaml"]


def test_more_blocks_than_there_is_memory_is_an_answer(simslm, tiny, monkeypatch):
    monkeypatch.setattr("profiler.campaign.affordable_blocks", lambda *_, **__: 23)
    ended = simslm("validate", "live", tiny, "--grid", "quick", "-o", "out")
    assert ended.code == 4
    assert "24 KV blocks are to be allocated, but 23 fit" in ended.err


@pytest.mark.parametrize("more", [(), TWO], ids=["one", "two"])
def test_runs_that_are_done_when_it_is_interrupted_are_kept(simslm, tiny, here, monkeypatch, more):
    """Ctrl-C while the second run is served."""

    @contextmanager
    def pressed() -> Iterator[Interruption]:
        held.append(Interruption())
        yield held[0]

    def tell(repeats, load, run):
        held[0].asked = run == 2

    held: list[Interruption] = []
    monkeypatch.setattr(validate_live, "held_back", pressed)
    monkeypatch.setattr(validate_live, "_tell_run", tell)
    ended = simslm("validate", "live", tiny, *more, "--grid", "quick", "--repeats", 3, "-o", "out")
    assert ended.code == 130
    assert "out holds the 1 runs done by then" in ended.err
    values = json.loads((here / "out" / "fidelity.json").read_text())
    assert [row["run"] for row in values["rows"]] == ["as stated, repeat 1"]
    assert values["interrupted"]


def test_two_replicas_share_the_device_and_the_arrivals(simslm, tiny, here, monkeypatch):
    """As threads; what they do to each other is measured into the trace, and one that fails ends the command."""
    options = (*TWO, "--grid", "quick", "--repeats", 2, "--threads", 1, "-o")
    ended = simslm("validate", "live", tiny, *options, "out")
    assert ended.code == 0, ended.err
    assert "2 replicas share the device, their interference measured" in ended.out
    assert "the iterations that ran cost" not in ended.out
    values = json.loads((here / "out" / "fidelity.json").read_text())
    assert [row["setting"]["replicas"] for row in values["rows"]] == [2, 2]
    assert (values["serving"]["replicas"], values["serving"]["sharing"]) == (2, "streams")
    assert values["serving"]["threads"] == 1
    rows = pd.read_parquet(here / "out" / "trace" / "iterations.parquet")
    assert {*zip(rows.sharing, rows.replicas, strict=True)} == {("none", 1), ("streams", 2)}
    requests, served, iterations, ran = (pd.read_parquet(here / "out" / "as-stated" / name) for name in SIDES)
    for _, one in served.groupby("repeat"):
        assert one.replica.tolist() == requests.replica.tolist() == [0, 1] * 6
    for _, one in ran.groupby("repeat"):
        tokens = one.groupby("replica").prefill_tokens.sum()
        assert tokens.equals(iterations.groupby("replica").prefill_tokens.sum())

    from profiler.serving.together import LiveReplicas

    serve, calls = LiveReplicas.serve, []

    def fail_later(*given):
        calls.append(given)
        if len(calls) > 1:
            raise DeviceError("a replica ended before its time")
        return serve(*given)

    monkeypatch.setattr(LiveReplicas, "serve", fail_later)
    again = simslm("validate", "live", tiny, "--trace", "out/trace", *options, "again")
    assert again.code == 5
    assert "a replica ended before its time" in again.err
    assert "again holds the 1 runs done by then" in again.err
    values = json.loads((here / "again" / "fidelity.json").read_text())
    assert [row["run"] for row in values["rows"]] == ["as stated, repeat 1"]
    assert values["interrupted"]
