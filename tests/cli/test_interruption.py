"""Ctrl-C in the middle of a long simulation, and readers that have had enough."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from simslm.cli.failure import InterruptError
from simslm.cli.interruption import held_back

PROGRAM = (sys.executable, "-c", "from simslm.cli import main; main()")
LONG = (
    "--set", "workload.num_requests=400000",
    "--set", "workload.arrivals={process: poisson, rate_rps: 2000}",
    "--set", "workload.prompt_tokens.value=2",
)  # fmt: skip


def await_text(terminal: int, text: bytes) -> bytes:
    """What the terminal shows, until ``text`` is among it."""
    shown = b""
    while text not in shown:
        try:
            shown += os.read(terminal, 4096)
        except OSError:
            pytest.fail(f"the program ended without {text!r}: {shown.decode(errors='replace')}")
    return shown


@pytest.mark.slow
def test_what_is_finished_is_kept(scenario, here):
    ours, theirs = pty.openpty()
    command = (*PROGRAM, "simulate", str(scenario), *LONG, "-o", "out", "--json")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, cwd=here) as process:
        os.close(theirs)
        await_text(ours, b"simulated")
        process.send_signal(signal.SIGINT)
        shown = await_text(ours, b"unfinished")
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"interrupted: out holds what had happened by then" in shown
    assert b"Traceback" not in shown
    summary = json.loads(out)
    assert summary == json.loads((here / "out" / "summary.json").read_text(encoding="utf-8"))
    counts = summary["requests"]
    assert counts["finished"] >= 1024
    assert counts["unfinished"] > 0
    assert counts["arrived"] == counts["finished"] + counts["unfinished"] < 400_000
    status = pq.read_table(here / "out" / "requests.parquet").column("status").to_pylist()
    assert (status.count("finished"), len(status)) == (counts["finished"], counts["arrived"])
    assert json.loads((here / "out" / "manifest.json").read_text(encoding="utf-8"))["interrupted"] is True
    assert (here / "out" / "report.html").exists()


def press() -> None:
    """Ctrl-C, in this process."""
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_stops_and_the_second_abandons(capfd):
    before, stopped = signal.getsignal(signal.SIGINT), []
    with held_back() as interruption:
        interruption.stopping(lambda: stopped.append("by the key"))
        interruption.obey()
        assert not stopped
        press()
        assert stopped == ["by the key"]
        interruption.stopping(lambda: stopped.append("at once"))
        assert stopped == ["by the key", "at once"]
        with pytest.raises(KeyboardInterrupt):
            interruption.obey()
        with pytest.raises(InterruptError):
            press()
    assert signal.getsignal(signal.SIGINT) is before
    assert "will be kept" in capfd.readouterr().err


def test_writing_is_not_interrupted(capfd):
    with held_back() as interruption:
        interruption.writing = True
        press()
        press()
        assert not interruption.asked
    assert capfd.readouterr().err.count("files are being written") == 2


def test_an_abandoned_run_leaves_nothing(simslm, scenario, here, monkeypatch):
    from simslm import api

    simulate = api.simulate

    def press_twice(*arguments: Any, on_start: Any, **options: Any) -> Any:
        def start(stop: Any) -> None:
            on_start(stop)
            press()
            press()

        return simulate(*arguments, on_start=start, **options)

    monkeypatch.setattr(api, "simulate", press_twice)
    ended = simslm("simulate", scenario, "-o", "some/where", "--set", "workload.num_requests=2000")
    assert ended.code == 130
    assert ended.err.endswith("simslm: interrupted; nothing is kept\n")
    assert list(here.iterdir()) == [scenario]


def test_a_short_run_stops_too(simslm, scenario, here, monkeypatch):
    """In the middle of a span of decodes of the very first requests."""
    from simslm import api

    simulate = api.simulate

    def press_once(*arguments: Any, on_start: Any, **options: Any) -> Any:
        def start(stop: Any) -> None:
            on_start(stop)
            press()

        return simulate(*arguments, on_start=start, **options)

    monkeypatch.setattr(api, "simulate", press_once)
    ended = simslm("simulate", scenario, "-o", "out", "--json")
    assert ended.code == 130
    assert "interrupted: out holds what had happened by then" in ended.err
    counts = json.loads((here / "out" / "summary.json").read_text(encoding="utf-8"))["requests"]
    assert counts["finished"] == 0


def test_an_interrupted_start_writes_nothing(simslm, scenario, here, monkeypatch):
    from simslm import api

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "load_scenario", interrupt)
    ended = simslm("simulate", scenario)
    assert ended.code == 130
    assert ended.complaint == "interrupted"
    assert list(here.iterdir()) == [scenario]


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_error(here: Path):
    process = subprocess.Popen(
        (*PROGRAM, "schema"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=here, bufsize=0
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as stderr:
        assert stderr.read() == b""
    assert process.wait(timeout=60) == 0
