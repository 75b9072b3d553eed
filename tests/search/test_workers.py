"""The same bytes for any number of workers, on Ray, and however often the search is killed and taken up again."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.scenarios import examples

pytestmark = pytest.mark.slow

PROGRAM = (sys.executable, "-c", "from simslm.cli import main; main()")
FILES = ("frontier.json", "trials.parquet")
KILLS = examples(3)


SEARCH = {
    "space": {
        "deployment.engine.max_num_seqs": [1, 4, 16],
        "deployment.engine.max_num_batched_tokens": [64, 1024],
    },
    "replications": 3,
    "method": {"name": "halving", "rungs": [0.5, 1.0], "keep": 0.6},
    "capacity": {"of": "workload.arrivals.rate_rps"},
    "objectives": {"capacity.value": "max", "itl_s.p50": "min"},
}
"""With rounds, replications and a capacity; two seconds."""


@pytest.fixture
def scenario(searched, tmp_path, monkeypatch) -> Path:
    """The search's file, in an empty directory, the current one."""
    searched["workload"]["arrivals"] = {"process": "poisson", "rate_rps": 60}
    searched["search"] |= SEARCH
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "searched.yaml"
    path.write_text(json.dumps(searched), encoding="utf-8")
    return path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (*PROGRAM, "search", "searched.yaml", *arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def contents(directory: str) -> list[bytes]:
    return [Path(directory, name).read_bytes() for name in FILES]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The directory of a search that one process has run without a disturbance."""
    return tmp_path_factory.mktemp("finished")


@pytest.fixture
def alone(scenario: Path, finished: Path) -> list[bytes]:
    """What that search wrote; a copy of it is in ``alone``."""
    if not (finished / "alone").exists():
        ended = run("-o", str(finished / "alone"), "--jobs", "1")
        assert ended.returncode == 0, ended.stderr
    shutil.copytree(finished / "alone", "alone")
    return contents("alone")


def test_two_workers_write_the_same_bytes(alone):
    ended = run("-o", "two", "--jobs", "2")
    assert ended.returncode == 0, ended.stderr
    assert contents("two") == alone


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra `ray`)")
def test_ray_with_two_workers_writes_the_same_bytes(alone):
    ended = run("-o", "ray", "--jobs", "2", "--executor", "ray")
    assert ended.returncode == 0, ended.stderr
    assert contents("ray") == alone


def journal(directory: str) -> list[str]:
    path = Path(directory, "trials.jsonl")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def kill_at(directory: str, lines: int, jobs: str) -> None:
    """Begins or continues a search and kills it once its journal has so many lines."""
    with subprocess.Popen(
        (*PROGRAM, "search", "searched.yaml", "-o", directory, "--resume", "--jobs", jobs),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None and len(journal(directory)) < lines:
            time.sleep(0.002)
        process.kill()


def test_killed_at_any_moment_and_taken_up_again_it_writes_the_same_bytes(alone):
    total = len(journal("alone"))
    moments = np.sort(np.random.default_rng(0).integers(1, total, KILLS))
    for i, lines in enumerate(moments.tolist()):
        before = journal("killed")
        kill_at("killed", lines, "1" if i % 2 else "2")
        after = journal("killed")
        assert after[: len(before[:-1])] == before[:-1]  # but for a line that was cut off
    ended = run("-o", "killed", "--resume", "--jobs", "1")
    assert ended.returncode == 0, ended.stderr
    assert contents("killed") == alone
    trials = [line for line in journal("killed") if '"trial"' in line]
    assert len(trials) == len(set(trials)) == len([line for line in journal("alone") if '"trial"' in line])


def test_no_worker_outlives_a_killed_search(scenario):
    with subprocess.Popen(
        (
            *PROGRAM,
            "search",
            "searched.yaml",
            "-o",
            "orphans",
            "--jobs",
            "2",
            "--set",
            "search.replications=200",
        ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while len(journal("orphans")) < 5:
            assert process.poll() is None
            time.sleep(0.01)
        children = children_of(process.pid)
        assert len(children) >= 2
        process.kill()
    deadline = time.monotonic() + 30
    while any(alive(child) for child in children):
        assert time.monotonic() < deadline, "a worker is still there"
        time.sleep(0.05)


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def alive(process: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_a_worker_that_dies_is_an_error_with_a_remedy(scenario):
    with subprocess.Popen(
        (
            *PROGRAM,
            "search",
            "searched.yaml",
            "-o",
            "dead",
            "--jobs",
            "2",
            "--set",
            "search.replications=200",
        ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while len(journal("dead")) < 5:
            assert process.poll() is None
            time.sleep(0.01)
        worker = next(child for child in children_of(process.pid) if "spawn_main" in command_of(child))
        os.kill(worker, signal.SIGKILL)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 5
    assert "a worker process died, perhaps for want of memory; run it again with --resume" in err


def command_of(process: int) -> str:
    return Path(f"/proc/{process}/cmdline").read_text()


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_point_that_names_what_is_not_there_ends_the_search(scenario, jobs):
    ended = run("-o", "out", "--jobs", jobs, "--set", "search.space.model=[opt-1.3c]")
    assert ended.returncode == 2
    assert ended.stderr.startswith("simslm: the point model opt-1.3c, deployment.engine.max_num_seqs ")
    assert "no model 'opt-1.3c' in the catalogue (did you mean 'opt-1.3b'?)" in ended.stderr


def test_a_line_that_was_cut_off_is_done_again(alone):
    lines = Path("alone", "trials.jsonl").read_bytes().splitlines(keepends=True)
    os.makedirs("cut")
    Path("cut", "trials.jsonl").write_bytes(b"".join(lines[:7]) + lines[7][:-9])
    assert run("-o", "cut", "--resume", "--jobs", "1").returncode == 0
    assert contents("cut") == alone


def test_ctrl_c_writes_the_frontier_of_what_is_done(scenario):
    command = (
        *PROGRAM,
        "search",
        "searched.yaml",
        "-o",
        "stopped",
        "--jobs",
        "2",
        "--set",
        "search.replications=200",
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while len(journal("stopped")) < 40:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "trials done by then; --resume continues" in err
    frontier = json.loads(Path("stopped", "frontier.json").read_text(encoding="utf-8"))
    assert frontier["interrupted"] is True
    assert frontier["points"]
    assert frontier["counts"]["trials"] == len(journal("stopped")) - 1
    assert Path("stopped", "report.html").exists()


def test_another_scenario_is_not_continued(alone):
    ended = run("-o", "alone", "--resume", "--set", "workload.num_requests=41")
    assert ended.returncode == 2
    assert ended.stderr == (
        "simslm: alone: holds a search of another scenario: scenario.workload.num_requests was 40 and is 41; "
        "choose another directory with `-o`\n"
    )
    assert contents("alone") == alone


def test_an_unfinished_search_is_not_thrown_away(alone):
    path = Path("alone", "trials.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:9]))
    ended = run("-o", "alone")
    assert ended.returncode == 2
    assert ended.stderr == (
        "simslm: alone: holds a search that was not finished (8 trials are); continue it with --resume, or choose "
        "another directory with `-o`\n"
    )
    assert path.read_bytes() == b"".join(lines[:9])
