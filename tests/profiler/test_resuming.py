"""Campaigns that are cut off, by an error, a signal or a kill: nothing is lost or measured twice when they go on."""

import itertools
import json
import os
import subprocess
import sys

import pytest
from tiny_campaigns import TINY_LLAMA, grid_of, journal_of, measure, refusing

from profiler import campaign as campaign_module
from profiler import passes
from profiler.grid import Shape
from profiler.refinement import refined
from profiler.visits import Visits
from simslm.errors import InfeasibleError
from simslm.traces.check import check_trace
from simslm.traces.files import holds_trace, read_trace

pytestmark = pytest.mark.usefixtures("quick_campaign")


class Cut(BaseException):
    """A process killed at some moment."""


@pytest.mark.parametrize("after", [1, 17, 40, 75])
def test_a_cut_off_campaign_goes_on_where_it_stopped(tmp_path, monkeypatch, llama, after):
    visits = []
    original = Visits.iteration

    def visit(self, shape):
        if len(visits) == after:
            raise Cut
        visits.append(shape)
        return original(self, shape)

    monkeypatch.setattr(Visits, "iteration", visit)
    with pytest.raises(Cut):
        measure(tmp_path)
    assert holds_trace(tmp_path / "trace") == any(shape in grid_of(llama) for shape in visits)
    with journal_of(tmp_path).open("a") as sink:
        sink.write('["iteration", "half a li')
    first, after = len(visits), -1
    trace = read_trace(measure(tmp_path))
    assert "unfinished" not in trace.provenance
    total = trace.iterations.num_rows + trace.heldout.num_rows
    assert len(visits) == total
    assert first < total


def test_what_a_cut_off_campaign_had_is_a_trace_that_says_so(tmp_path, monkeypatch):
    original, visits = Visits.iteration, itertools.count()

    def visit(self, shape):
        if next(visits) == 90:
            raise KeyboardInterrupt
        return original(self, shape)

    monkeypatch.setattr(Visits, "iteration", visit)
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path)
    trace = read_trace(tmp_path / "trace")
    assert trace.provenance["unfinished"]
    assert trace.iterations.num_rows + trace.heldout.num_rows == 90
    assert any("did not end" in finding.what for finding in check_trace(trace))


def test_a_finished_trace_stays_until_the_next_one_is(tmp_path):
    path = measure(tmp_path, repeats=1)
    before = read_trace(path).content_hash
    with pytest.raises(InfeasibleError):
        measure(tmp_path, repeats=1, seed=1, budget_s=1e-9)
    assert read_trace(path).content_hash == before


def test_a_budget_does_not_replace_a_finished_trace_either(tmp_path, monkeypatch):
    path = measure(tmp_path, repeats=1)
    before = read_trace(path).content_hash
    ticks = itertools.count(0.0, 1.0)
    monkeypatch.setattr(campaign_module.time, "perf_counter", lambda: next(ticks))
    measure(tmp_path, repeats=200, seed=1, budget_s=6000.0)
    assert read_trace(path).content_hash == before
    assert journal_of(tmp_path).exists()


def test_the_grid_becomes_finer_where_it_bends_and_the_same_when_resumed(tmp_path, monkeypatch, llama):
    monkeypatch.setattr(passes, "refined", refined)

    def measured(path, repeats):
        return read_trace(measure(path, repeats=repeats)).iterations.to_pylist()

    stepped = {4: 5.0, 16: 1.0}

    def visit(self, shape):
        if next(visits) == stop:
            raise Cut
        latency_s = 1.0 + shape.decode_seqs + stepped.get(shape.decode_seqs, 0.0)
        return [
            {**shape.columns(), "sharing": "none", "replicas": 1, "latency_s": latency_s, "host_s": 0.1}
        ]  # fmt: skip

    monkeypatch.setattr(Visits, "iteration", visit)
    visits, stop = itertools.count(), -1
    assert {shape.decode_seqs for shape in map(tuple_shape, measured(tmp_path / "short", 3))} == {
        0,
        1,
        4,
        16,
        32,
    }
    visits = itertools.count()
    whole = measured(tmp_path / "whole", 8)
    visits, stop = itertools.count(), next(visits) - 5
    with pytest.raises(Cut):
        measured(tmp_path / "cut", 8)
    visits, stop = itertools.count(), -1
    assert measured(tmp_path / "cut", 8) == whole
    added = {shape.decode_seqs for shape in map(tuple_shape, whole)} - {0, 1, 4, 16, 32}
    assert 2 in added


def tuple_shape(row):
    return Shape(row["decode_seqs"])


KILLED = """
import json, os, random, sys, time
import torch
import profiler.campaign, profiler.specification, simslm.cli.app
from pathlib import Path
from profiler import visits
from profiler.measure import ceilings, operators
from simslm.cli import main

journal, kills, arguments = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
visits.VISIT_S = dict.fromkeys(visits.VISIT_S, 0.0)
visits.warm_up = lambda call: call()
operators.CacheEviction = lambda device: lambda: None
ceilings._SIDE, ceilings._STREAM_BYTES = {"cpu": 32}, {"cpu": 4096}
torch.set_num_threads(1)

def lines():
    text = journal.read_bytes() if journal.exists() else b""
    return text[: text.rfind(b"\\n") + 1].splitlines()[1:]

def begun():
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        sys.argv = ["simslm", *arguments]
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        os._exit(code)

rng, kept = random.Random(0), []
for _ in range(kills):
    wanted = len(lines()) + rng.randint(1, 60)
    pid = begun()
    while len(lines()) < wanted:
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "it ended before it was killed"
        time.sleep(0.005)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    assert lines()[: len(kept)] == kept, "what was there is gone"
    kept = lines()
assert os.waitpid(begun(), 0)[1] == 0
rows = [row["latency_s"] for line in map(json.loads, kept) for row in line[3] if line[0] == "iteration"]
print(json.dumps(rows))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="campaigns are forked")
def test_no_number_of_kills_loses_a_visit(tmp_path):
    """Killed at random moments, ten times every night; what each campaign had written is in the trace of the last one.

    They are forked from a process that has imported all they need, which takes longer than they do.
    """
    config, trace = tmp_path / "config.json", tmp_path / "trace"
    config.write_text(json.dumps(TINY_LLAMA))
    kills, passes = ("10", "12") if os.environ.get("SIMSLM_WHOLE") else ("4", "5")
    arguments = ["profile", "--model", str(config), "--device", "cpu", "--dtype", "fp32", "--threads", "1"]
    arguments += ["--repeats", passes, "--reach", "8,264,72", "-o", str(trace)]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(journal_of(tmp_path)), kills, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    kept = json.loads(done.stdout.splitlines()[-1])
    measured = set(read_trace(trace).iterations.column("latency_s").to_pylist())
    assert len(kept) > 100
    assert measured.issuperset(kept)
    assert not journal_of(tmp_path).exists()


def test_the_replica_alone_is_not_measured_again_when_its_company_was_cut_off(tmp_path, monkeypatch):
    visited = refusing(monkeypatch, lambda shape, number: None)

    def cut(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(campaign_module.Together, "measure", cut)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            measure(tmp_path, repeats=1, replicas=[1, 2])
    trace = read_trace(tmp_path / "trace")
    assert "unfinished" not in trace.provenance
    assert len(visited) == trace.iterations.num_rows + trace.heldout.num_rows
