"""Whole campaigns on the stand-in of a GPU, with faults drawn at random: ``python rehearsal.py RUNS SEED FIRST``.

RUNS campaigns from number FIRST on; a campaign's faults follow from its number and SEED alone, both 0 by default.

Each campaign is run again until it is done, as a user would who is told to. What must hold, whatever happens:

1. no attempt ends with exit code 70, or with a traceback;
2. what the journal held when an attempt ended is in the trace in the end: no visit is lost;
3. the trace is valid whenever an attempt has ended;
4. the campaign comes to its end once no more faults come, and leaves no process and no directory of MPS behind.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import random
import shutil
import signal
import stat
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

import cuda_stand_in as stand_in  # noqa: E402
import torch  # noqa: E402

MODEL = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1, "hidden_size": 32,
    "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 48, "vocab_size": 97,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": True,
    "rope_theta": 10000.0,
}  # fmt: skip
TOKENS = (1, 2, 17, 18, 16, 3)
"""New tokens of iterations of the grid, of which one kind may not compile."""

FAULTY_ATTEMPTS = 4
"""Attempts after which no more faults come, but for kernels that never compile."""

MOST_ATTEMPTS = 8

MOST_PROCESSOR_S = 200.0
"""Processor time after which an attempt hangs; the longest, replicas with interpreted kernels, need under 50."""

MOST_WALL_S = 1800.0
"""Wall time after which an attempt waits for what never comes, on however busy a machine."""

LOOK_S = 5.0
"""Between two looks at the processor time."""

LEFT_S = 120.0
"""Within which MPS ends, and its directory goes."""

ENDS = {0, 5, 130}

DAEMON = """#!/bin/sh
d=$CUDA_MPS_PIPE_DIRECTORY
if [ "$1" = -f ]; then echo $$ > "$d/pid"; echo "$$ $d" >> "$MPS_NOTES"; exec sleep 600; fi
read -r said
[ -f "$d/pid" ] && kill -0 "$(cat "$d/pid")" || exit 1
[ "$said" = get_server_list ] && echo "$MPS_SERVERS"
[ "$said" = quit ] && kill "$(cat "$d/pid")"
exit 0
"""
"""MPS, as far as it is used."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong in one attempt.

    Attributes:
        seed: of the moments.
        memory: share of the iterations that run out of memory.
        dead: the iteration after which the context is dead; 0 = none.
        uncompiled: iterations of so many new tokens do not compile; 0 = all do.
        nvml: share of the NVML calls that fail.
        missing: an NVML function that the driver never answers; empty = none.
        servers: what MPS says that it serves.
        kill_daemon: whether MPS is killed while replicas run.
        signal: sent to the attempt; 0 = none.
        lines: the entries of the journal, more than it had, at which it is sent.
    """

    seed: int
    memory: float = 0.0
    dead: int = 0
    uncompiled: int = 0
    nvml: float = 0.0
    missing: str = ""
    servers: str = "4711"
    kill_daemon: bool = False
    signal: int = 0
    lines: int = 0


def drawn(rng: random.Random, uncompiled: int, mps: bool) -> Faults:
    """The faults of one attempt, none to several of them."""

    def sometimes(share: float, value: Any, otherwise: Any) -> Any:
        return value if rng.random() < share else otherwise

    reading = rng.choice(
        ["TotalEnergyConsumption", "ClockInfo", "PowerUsage", "CurrentClocksThrottleReasons"]
    )
    return Faults(
        rng.randrange(2**31),
        memory=sometimes(0.4, rng.choice([0.01, 0.1, 0.9]), 0.0),
        dead=sometimes(0.15, rng.randrange(1, 200), 0),
        uncompiled=uncompiled,
        nvml=sometimes(0.4, rng.choice([0.01, 0.2]), 0.0),
        missing=sometimes(0.3, rng.choice([f"nvmlDeviceGet{reading}", "nvmlInit"]), ""),
        servers=sometimes(0.2, "", "4711"),
        kill_daemon=mps and rng.random() < 0.3,
        signal=sometimes(0.6, rng.choice([signal.SIGTERM, signal.SIGKILL]), 0),
        lines=rng.randrange(0, 40),
    )


class Striking:
    """Strikes a process with its faults.

    Args:
        faults: which.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults, self._rng, self._iterations = faults, random.Random(faults.seed), 0

    def before_iteration(self, tokens: int) -> None:
        """Called with the new tokens of an iteration."""
        faults = self._faults
        self._iterations += 1
        if faults.dead and self._iterations >= faults.dead:
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore lines")
        if tokens == faults.uncompiled:
            from triton.runtime.errors import OutOfResources

            raise OutOfResources(139_520, 101_376, "shared memory")
        if self._rng.random() < faults.memory:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def before_reading(self, name: str) -> None:
        """Called with the name of an NVML function."""
        if name == self._faults.missing or (name != "nvmlInit" and self._rng.random() < self._faults.nvml):
            raise stand_in.NVMLError("Unknown Error")


def attempt(arguments: list[str], faults: Faults, interpreted: bool) -> None:
    """The process of one attempt; does not return."""
    code = 70
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        out = os.open(os.environ["REHEARSAL_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        say_where()
        _prepare(Striking(faults), interpreted)
        sys.argv = ["simslm", *arguments]
        from simslm.cli import main

        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _prepare(striking: Striking, interpreted: bool) -> None:
    stand_in.activate(stand_in.Device(refuse=striking.before_reading))
    import multiprocessing

    from profiler import colocation, replicas
    from profiler.engine import engine, support
    from simslm.cli import profile as command

    prepare = engine.Engine.prepare

    def struck(self: Any, batch: Any) -> Any:
        striking.before_iteration(sum(len(chunk.tokens) for chunk in batch))
        return prepare(self, batch)

    stand_in.replace(engine.Engine, prepare=struck)
    if not interpreted:
        stand_in.replace(support, find_spec=lambda name: None)
        assert support.kernels_lack(torch.device("cuda:0"))
    fork = multiprocessing.get_context("fork")  # the replicas know the stand-in, and start at once
    stand_in.replace(multiprocessing, get_context=lambda kind=None: fork)
    stand_in.replace(replicas, _GRACE_S=2.0)
    stand_in.replace(colocation, BATCHES={"cpu": (1, 2), "cuda": (1, 2)})
    stand_in.replace(command, trace_page=lambda trace: trace / "page.html")


def entries(path: Path) -> list[Any]:
    """The whole entries of a journal."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()[1:]]


def say_where() -> None:
    """Has SIGUSR1 print where this process is, and end it."""
    faulthandler.register(signal.SIGUSR1, chain=True)


class HangingError(Exception):
    """An attempt does not end."""


def watched(pid: int, journals: list[Path], faults: Faults, notes: Path) -> int:
    """The exit code of an attempt, which is struck from outside meanwhile.

    Raises:
        HangingError: it does not end; where it was is in its log.
    """
    wanted = sum(len(entries(path)) for path in journals) + faults.lines
    start, pending, daemons = time.monotonic(), faults.signal, faults.kill_daemon
    look = start + LOOK_S
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if pending and sum(len(entries(path)) for path in journals) >= wanted:
            os.kill(pid, pending)
            pending = 0
        if daemons and notes.exists() and entries(journals[1]):
            for line in notes.read_text().splitlines():
                _kill(int(line.split()[0]))
            daemons = False
        if time.monotonic() > look:
            look += LOOK_S
            spent_s, wall_s = processor_s(pid), time.monotonic() - start
            if spent_s > MOST_PROCESSOR_S or wall_s > MOST_WALL_S:
                _end_hanging(pid)
                raise HangingError(f"it hangs after {spent_s:.0f} s of processor time in {wall_s:.0f} s")
        time.sleep(0.005)


def _end_hanging(pid: int) -> None:
    """Has an attempt say where it is, which ends it, and ends what it started."""
    os.kill(pid, signal.SIGUSR1)
    os.waitpid(pid, 0)
    _kill_group(pid)


def processor_s(group: int) -> float:
    """What the processes of a group have spent so far, with children of theirs that have ended."""
    spent = 0
    for stat_file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat_file.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        if int(fields[2]) == group:
            spent += sum(map(int, fields[11:15]))
    return spent / os.sysconf("SC_CLK_TCK")


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def campaign(seed: int, run: int) -> list[str]:
    """One campaign with its attempts; how each ended, in words.

    Raises:
        AssertionError: an invariant is broken.
    """
    from simslm.traces.files import holds_trace, read_trace

    rng = random.Random(f"{seed}-{run}")
    uncompiled, mps = rng.choice([0, 0, *TOKENS]), rng.random() < 0.3
    interpreted = rng.random() < 0.05 and not mps  # two replicas would interpret kernels for a minute
    folder = Path(tempfile.mkdtemp(prefix="simslm-rehearsal-"))
    trace, notes, said = folder / "trace", folder / "notes", folder / "said"
    journals = [folder / "trace.journal.partial", folder / "trace.colocated.partial"]
    (folder / "config.json").write_text(json.dumps(MODEL))
    daemon = folder / "nvidia-cuda-mps-control"
    daemon.write_text(DAEMON)
    daemon.chmod(daemon.stat().st_mode | stat.S_IXUSR)
    arguments = ["profile", "--model", str(folder / "config.json"), "--device", "cuda:0", "--dtype", "fp32"]
    arguments += ["--grid", "quick", "--reach", "2,32,16", "--repeats", "1" if interpreted else "3"]
    arguments += ["--threads", "1", "-o", str(trace)]
    arguments += ["--replicas", "1,2", "--sharing", "mps,time-slice"] if mps else []
    seen: dict[str, list[Any]] = {}
    ends: list[str] = []
    for number in range(MOST_ATTEMPTS):
        faults = drawn(rng, uncompiled, mps) if number < FAULTY_ATTEMPTS else Faults(0, uncompiled=uncompiled)
        os.environ |= {"MPS_NOTES": str(notes), "MPS_SERVERS": faults.servers, "REHEARSAL_LOG": str(said)}
        os.environ["PATH"] = f"{folder}:{os.environ['PATH'].split(':', 1)[-1]}"
        said.write_text("")
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            attempt(arguments, faults, interpreted)
        what = f"run {run} of seed {seed}, attempt {number}, {faults}"
        try:
            code = watched(pid, journals, faults, notes)
        except HangingError as error:
            raise AssertionError(f"{error} in {what}:\n{said.read_text(errors='replace')[-4000:]}") from None
        _kill_group(pid)
        ends.append(str(code))
        told = f"{what}:\n{said.read_text(errors='replace')[-2000:]}"
        assert code in ENDS or code in (-faults.signal, -9 if faults.signal else 0), (
            f"exit code {code} in {told}"
        )
        assert "Traceback" not in said.read_text(errors="replace"), told
        for path in journals:
            _keep(seen, entries(path), told)
        if holds_trace(trace):
            read_trace(trace)
        complete = code == 0 or (code == 5 and "was not measured" in said.read_text())
        if complete and not any(path.exists() for path in journals):
            _check_whole(seen, read_trace(trace), told)
            break
    else:
        raise AssertionError(f"it does not come to its end: {ends}; {told}")
    _check_nothing_left(notes)
    shutil.rmtree(folder)
    return ends


def _kill_group(pid: int) -> None:
    """Replicas here are forked: unlike those of a real campaign, they hold each other's connections open."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _keep(seen: dict[str, list[Any]], found: list[Any], told: str) -> None:
    """Notes what is finished; what was before must be there as it was."""
    for kind, label, visit, rows in found:
        key = json.dumps([kind, label, visit])
        assert seen.setdefault(key, rows) == rows, f"{key} was measured twice in {told}"


def _check_whole(seen: dict[str, list[Any]], trace: Any, told: str) -> None:
    """Every visit that was ever finished is in the trace."""
    tables = {"iteration": trace.iterations, "heldout": trace.heldout, "colocated": trace.iterations}
    tables |= {"kernel": trace.kernels}
    kept = {
        kind: set(table.column("latency_s").to_pylist())
        for kind, table in tables.items()
        if table is not None
    }
    assert "unfinished" not in trace.provenance, told
    for key, rows in seen.items():
        kind = json.loads(key)[0]
        if kind in tables:
            lost = [row for row in rows if row["latency_s"] not in kept.get(kind, set())]
            assert not lost, f"{key} is lost in {told}"


def _check_nothing_left(notes: Path) -> None:
    lines = notes.read_text().splitlines() if notes.exists() else []
    for line in lines:
        pid, directory = line.split()
        deadline = time.monotonic() + LEFT_S
        while (_runs(int(pid)) or Path(directory).exists()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _runs(int(pid)), "an MPS daemon is left"
        assert not Path(directory).exists(), "a directory of MPS is left"


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def main() -> None:
    runs, seed, first = [*map(int, sys.argv[1:]), 0, 0][:3]
    torch.set_num_threads(1)
    for name in ("pandas", "profiler.campaign", "profiler.plan", "simslm.cli.app", "simslm.cli.profile"):
        importlib.import_module(name)  # before the forks, so that none of them takes seconds for it

    ends: Counter[str] = Counter()
    start = time.monotonic()
    for done in range(1, runs + 1):
        ends.update(campaign(seed, first + done - 1))
        if done % 10 == 0 or done == runs:
            codes = ", ".join(f"{code}: {count}" for code, count in sorted(ends.items()))
            sys.stdout.write(
                f"{done} campaigns, {ends.total()} attempts, none lost a visit; exit codes {codes}; "
                f"{time.monotonic() - start:.0f} s\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
