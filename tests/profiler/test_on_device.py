"""The script of checks on a device, without one: which checks there are, and how they are run, on stand-ins of them."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from side_by_side import run_all

pytest.importorskip("triton")

SCRIPT = Path(__file__).with_name("on_device.py")
STAND_IN = """
import os, sys, time
sys.path.insert(0, {place!r})
import side_by_side

late = []

def run(name, check):
    if check == "fails":
        raise ValueError("first line\\nlast line")
    if check == "differs":
        return "1.0e+00", False
    if check == "sticks":
        late.append(RuntimeError("an illegal memory access"))
        raise late[0]
    if check == "dies":
        sys.stderr.write("more\\nSegmentation fault\\n\\n")
        sys.stderr.flush()
        os._exit(139)
    if check == "waits":
        time.sleep(0.4)
    return f"pid {{os.getpid()}}", True

def settle():
    if late:
        raise late[0]

side_by_side.answer(run, settle)
"""


@pytest.fixture
def worker(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(STAND_IN.format(place=str(SCRIPT.parent)))
    return [sys.executable, str(script)]


def ran(checks, worker, processes):
    """Name, check, state, seconds and words of each, in the order they were over; the last line; how many failed."""
    out = io.StringIO()
    failed = run_all(checks, worker, processes, out)
    *lines, last = out.getvalue().splitlines()
    found = [re.fullmatch(r"(.{22}) (\w+) +(\w+) +([\d.]+) s  (.*)", line) for line in lines]
    return [(each[1].strip(), *each.groups()[1:]) for each in found if each], last, failed


def test_a_check_that_fails_leaves_the_others_alone(worker):
    """One that differs, one that raises, one whose error stays with the process, and one that takes it along."""
    ways = ["good", "differs", "good", "fails", "good", "sticks", "good", "dies", "good"]
    checks = [(f"case {i}", way) for i, way in enumerate(ways)]
    found, last, failed = ran(checks, worker, 1)
    assert [(name, way) for name, way, *_ in found] == checks
    assert [state for _, _, state, *_ in found] == ["ok" if way == "good" else "FAILED" for way in ways]
    words = {way: said for _, way, _, _, said in found}
    assert words["differs"] == "1.0e+00"
    assert words["fails"] == "ValueError: last line"
    assert words["sticks"] == "RuntimeError: an illegal memory access"
    assert words["dies"] == "its process ended with 139: Segmentation fault"
    pids = [said.split()[-1] for _, way, _, _, said in found if way == "good"]
    assert pids[0] == pids[1] == pids[2]
    assert len({*pids[2:]}) == 3, "another process goes on after one that is gone"
    assert (last.partition(" in ")[0], failed) == ("5 of 9 checks passed", 4)


def test_processes_share_the_checks_and_say_what_each_took(worker):
    start = time.perf_counter()
    found, last, failed = ran([(f"case {i}", "waits") for i in range(8)], worker, 4)
    took_s = time.perf_counter() - start
    assert {name for name, *_ in found} == {f"case {i}" for i in range(8)}
    assert len({said.split()[-1] for *_, said in found}) == 4
    assert all(float(seconds) >= 0.4 for _, _, _, seconds, _ in found)
    assert took_s < 8 * 0.4 or os.getloadavg()[0] > 4
    assert failed == 0
    assert last.startswith("8 of 8 checks passed in ")


def script(*arguments):
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_every_family_is_checked_in_every_way_that_compiles_soon(families):
    done = script("cuda:0", "--list")
    assert done.returncode == 0, done.stderr
    ways: dict[str, set[str]] = {}
    for line in done.stdout.splitlines():
        name, _, way = line.partition("/")
        ways.setdefault(name, set()).add(way)
    assert set(ways) > {*families, "llama, heads of 64", "llama, heads of 128", "gemma2, heads of 256"}
    everything = {"bf16", "fp16", "fp32", "fp32 int8", "bf16 fp8", "graphs", "graphs int8"}
    for name, found in ways.items():
        wide = name.endswith(("heads of 128", "heads of 256"))
        assert found == {way for way in everything if not (wide and way.startswith("fp32"))}, name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("opt-1.3b", "no case 'opt-1.3b'; there are 'opt', 'opt-350m'"),
        ("opt/fp8", "there are 'bf16', 'fp16'"),
    ],
)
def test_a_name_that_there_is_not_is_refused_before_anything_runs(name, said):
    done = script("cpu", "opt", name)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stdout == ""


def test_a_check_on_a_cpu_passes():
    """The kernels are interpreted; on a CPU weights of eight bits are no fp8."""
    done = script("cpu", "opt/bf16")
    assert done.returncode == 0, done.stdout + done.stderr
    line, last = done.stdout.splitlines()
    assert line.split()[:3] == ["opt", "bf16", "ok"]
    assert last.startswith("1 of 1 checks passed")
