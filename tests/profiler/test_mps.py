"""MPS by a stand-in of its daemon: started, asked, ended, and gone whatever ends the process that started it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from profiler.measure import mps
from profiler.measure.mps import mps_daemon
from simslm.errors import DeviceError

DAEMON = """#!/bin/sh
d=$CUDA_MPS_PIPE_DIRECTORY
echo "args:$* part:$CUDA_MPS_ACTIVE_THREAD_PERCENTAGE" >> "$NOTES"
if [ "$1" = -f ]; then
    [ "$FAULT" = broken ] && { echo "cannot bind the device"; exit 1; }
    echo $$ > "$d/pid"
    echo $$ >> "$NOTES.pids"
    trap 'exit 0' TERM
    sleep 1000 & echo $! >> "$NOTES.pids"
    wait
fi
read -r said
echo "said:$said" >> "$NOTES"
[ -f "$d/pid" ] && kill -0 "$(cat "$d/pid")" || exit 1
[ "$said" = get_server_list ] && echo "$SERVERS"
if [ "$said" = quit ] && [ "$FAULT" != deaf ]; then kill "$(cat "$d/pid")"; fi
exit 0
"""
"""The program that both is the daemon and speaks with it, as far as it is used."""


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    """Puts the stand-in on the path; what it notes."""
    program = tmp_path / "nvidia-cuda-mps-control"
    program.write_text(DAEMON)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    monkeypatch.setenv("SERVERS", "4711")
    monkeypatch.delenv("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", raising=False)
    return tmp_path / "notes"


def pids(notes: Path) -> list[int]:
    """Of the daemon, and of a process that it started."""
    return [int(word) for word in Path(f"{notes}.pids").read_text().split()]


def gone(pid: int) -> bool:
    """Whether a process has ended, within a while."""
    for _ in range(400):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_mps_runs_while_it_is_needed_and_leaves_nothing(daemon):
    before = dict(os.environ)
    with mps_daemon(25.0) as running:
        directory = Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"])
        assert directory.is_dir()
        assert os.environ["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "25"
        assert running.servers() == ["4711"]
        running.check_serving()
    assert dict(os.environ) == before
    assert not directory.exists()
    said = daemon.read_text().split("\n")
    assert "args:-f part:25" in said
    assert said[-2] == "said:quit"
    assert all(map(gone, pids(daemon)))


def test_without_a_server_processes_would_take_turns(daemon, monkeypatch):
    monkeypatch.setenv("SERVERS", "")
    with mps_daemon() as running, pytest.raises(DeviceError, match="would take turns"):
        running.check_serving()


def test_a_daemon_that_was_killed_has_no_server(daemon):
    with mps_daemon() as running:
        os.kill(pids(daemon)[0], signal.SIGKILL)
        assert gone(pids(daemon)[0])
        with pytest.raises(DeviceError, match="would take turns"):
            running.check_serving()
    assert all(map(gone, pids(daemon)))


def test_one_that_does_not_start_says_why(daemon, monkeypatch):
    monkeypatch.setenv("FAULT", "broken")
    monkeypatch.setattr(mps, "_START_S", 2.0)
    with (
        pytest.raises(DeviceError, match=r"does not start \(daemon.log: cannot bind the device"),
        mps_daemon(),
    ):
        pass


def test_one_that_does_not_quit_hides_no_error_and_is_ended(daemon, monkeypatch):
    monkeypatch.setenv("FAULT", "deaf")
    monkeypatch.setattr(mps, "_KEEPER", mps._KEEPER.replace("-lt 50", "-lt 2"))
    with pytest.raises(ValueError, match="the real error"), mps_daemon():
        raise ValueError("the real error")
    assert all(map(gone, pids(daemon)))


def test_nothing_is_left_of_it_when_its_process_is_killed(daemon, tmp_path):
    script = (
        "import os, time\nfrom profiler.measure.mps import mps_daemon\n"
        "with mps_daemon():\n    print(os.environ['CUDA_MPS_PIPE_DIRECTORY'], flush=True)\n    time.sleep(100)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    directory = Path(process.stdout.readline().strip())
    assert directory.is_dir()
    process.kill()
    process.wait()
    process.stdout.close()
    assert all(map(gone, pids(daemon)))
    for _ in range(100):
        if not directory.exists():
            return
        time.sleep(0.05)
    pytest.fail("its directory is still there")


def test_without_mps_one_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="nvidia-cuda-mps-control is not there"), mps_daemon():
        pass
