"""Campaigns on a stand-in of a GPU: in full without faults, and with faults drawn at random."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

RUNS = 200 if os.environ.get("SIMSLM_WHOLE") else 4
"""Campaigns with faults; ``make nightly`` has all."""

SCRIPT = Path(__file__).with_name("rehearsal.py")
WHOLE = """
import json, sys
sys.path.insert(0, {place!r})
import cuda_stand_in as stand_in
device = stand_in.Device()
stand_in.activate(device)
from profiler.campaign import profile
from profiler.specification import Specification
from profiler.grid import Reach
from tiny_models import tiny
options = dict(repeats=1, threads=1, reach=Reach(2, 32, 16))
model = tiny("llama-grouped-tied", num_layers=1, num_heads=2, num_kv_heads=1)
out = profile(Specification(model=model, device="cuda:0", dtype="fp32", output={out!r}, **options))
from simslm.traces.files import read_trace
trace = read_trace(out)
rows, power = trace.iterations.to_pandas(), trace.power.to_pandas()
print(json.dumps(dict(
    origin=trace.provenance, calls=device.calls, power=sorted(rows.power_w), states=sorted(power.state),
    energy=bool(rows.energy_j.notna().all()), clocks=sorted(set(rows.sm_clock_mhz)),
    throttle=sorted(set(rows.throttle)),
    host=bool((rows.host_s <= rows.latency_s).all()), kernels=sorted(set(trace.kernels["op"].to_pylist())),
)))
"""


def test_every_line_of_a_campaign_on_a_gpu_runs(tmp_path):
    """Kernels are interpreted; recordings are made and replayed; the counter, the clock and the sensor are read."""
    script = WHOLE.format(place=str(SCRIPT.parent), out=str(tmp_path / "trace"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    origin, calls = found["origin"], found["calls"]
    assert (origin["device"], origin["gpu"], origin["cuda"]) == ("h200", "NVIDIA H200", "13.0")
    assert (origin["attention"], origin["meter"], origin["power_note"]) == ("PagedAttention", "nvml", "")
    assert origin["graph_sizes"][:2] == [1, 2]
    assert origin["not_measurable"] == []
    assert calls["capture"] >= 2
    assert calls["replay"] > calls["capture"] > 0
    assert found["states"] == ["decode", "idle", "prefill"]
    assert found["energy"]
    assert found["power"][len(found["power"]) // 2] == pytest.approx(500.0, rel=0.5)
    assert (found["clocks"], found["throttle"]) == ([1980.0], [""])
    assert found["host"]
    assert {"attention_decode", "attention_prefill", "ceiling_matmul", "mlp"} <= set(found["kernels"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="attempts are forked")
def test_no_fault_loses_a_visit_or_ends_a_campaign_for_good():
    done = subprocess.run(
        [sys.executable, SCRIPT, str(RUNS), "1"], capture_output=True, text=True, env=_environment()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{RUNS} campaigns" in done.stdout
    assert "none lost a visit" in done.stdout


HANGING = """
import os, sys, time
sys.path.insert(0, {place!r})
import rehearsal
from pathlib import Path

def spin():
    while True: pass

def watched(does):
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        os.fork()
        does()
        os._exit(0)
    try:
        return rehearsal.watched(pid, [], rehearsal.Faults(0), Path("none"))
    except rehearsal.HangingError as error:
        return str(error)

rehearsal.say_where()
rehearsal.LOOK_S, rehearsal.MOST_PROCESSOR_S = 0.1, 0.5
print(watched(lambda: time.sleep(1.5)), watched(spin), flush=True)
rehearsal.MOST_WALL_S = 0.5
print(watched(lambda: time.sleep(3600)))
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processor time is read from /proc")
def test_an_attempt_hangs_by_what_it_spends_not_by_how_busy_the_machine_is():
    """What hangs says where it was, and is gone with its children: one that lived would hold the output open."""
    script = HANGING.format(place=str(SCRIPT.parent))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stderr
    slow, waiting = done.stdout.splitlines()
    assert slow.startswith("0 it hangs after")
    assert waiting.startswith("it hangs after")
    assert done.stderr.count("most recent call first") == 2
    assert "in spin" in done.stderr


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TRITON_INTERPRET": "1"}
