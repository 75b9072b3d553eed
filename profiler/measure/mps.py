"""NVIDIA's Multi-Process Service, started for a measurement and ended with it.

The daemon runs in the foreground of a small shell that waits for its standard input to end. That is when the
measurement is over, and when the process that measures is gone for whatever reason, SIGKILL too: then the shell tells
the daemon to quit, kills what is left of it, and removes its directory.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from simslm.errors import DeviceError

CONTROL = "nvidia-cuda-mps-control"

_PLACES: tuple[str, ...] = ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY")
_PART = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
_START_S = 20.0
_ANSWER_S = 10.0
_QUIT_S = 15.0
_REMEDY = "leave mps and sm-partition out of --sharing"

_KEEPER = """
control=$1 directory=$2
"$control" -f </dev/null >>"$directory/daemon.log" 2>&1 &
daemon=$!
cat >/dev/null
( echo quit | "$control" >>"$directory/daemon.log" 2>&1 ) &
i=0
while kill -0 "$daemon" 2>/dev/null && [ $i -lt 50 ]; do sleep 0.1; i=$((i + 1)); done
rm -rf "$directory"
kill -KILL 0
"""
"""Holds the daemon, in a process group of its own, until its standard input ends; five seconds to quit."""


class Mps:
    """A daemon that runs.

    Args:
        directory: of its pipes and logs.
        keeper: the shell that holds it.
    """

    def __init__(self, directory: Path, keeper: subprocess.Popen[bytes]) -> None:
        self._directory, self._keeper = directory, keeper

    def servers(self) -> list[str] | None:
        """Processes that serve clients, one for each user; None where the daemon does not answer."""
        try:
            said = subprocess.run(
                [CONTROL], input="get_server_list\n", text=True, capture_output=True, timeout=_ANSWER_S
            )
        except (OSError, subprocess.SubprocessError):
            return None
        if said.returncode:
            return None
        return [word for word in said.stdout.split() if word.isdigit()]

    def check_serving(self) -> None:
        """To be called once all clients have started: without a server they share the device by time slices.

        Raises:
            DeviceError: there is none.
        """
        if not self.servers():
            raise DeviceError(
                "MPS serves none of the processes that were started under it, so they would take turns on the device"
                f"{self._told()}",
                remedy=f"{_REMEDY}, or see to it that the daemon may serve this user",
            )

    def wait(self) -> None:
        """Waits until the daemon answers.

        Raises:
            DeviceError: it does not.
        """
        deadline = time.perf_counter() + _START_S
        while self._keeper.poll() is None and time.perf_counter() < deadline:
            if self.servers() is not None:
                return
            time.sleep(0.1)
        raise DeviceError(f"the MPS daemon does not start{self._told()}", remedy=_REMEDY)

    def end(self) -> None:
        """Ends it, after a while by force; errors in that are ignored."""
        with suppress(OSError):
            assert self._keeper.stdin is not None
            self._keeper.stdin.close()
        try:
            self._keeper.wait(_QUIT_S)
        except subprocess.TimeoutExpired:
            with suppress(OSError):
                os.killpg(self._keeper.pid, signal.SIGKILL)
            self._keeper.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _told(self) -> str:
        """The last line of its logs, as the rest of a sentence."""
        for name in ("daemon.log", "control.log", "server.log"):
            with suppress(OSError):
                lines = (self._directory / name).read_text(errors="replace").strip().splitlines()
                if lines:
                    return f" ({name}: {lines[-1][:200]})"
        return ""


@contextmanager
def mps_daemon(percentage: float | None = None) -> Iterator[Mps]:
    """Processes started inside share the device under MPS (NVIDIA, Multi-Process Service, "Starting and stopping").

    Its pipes and logs lie in a directory of their own, so that a daemon which runs already is left alone.

    Args:
        percentage: of the multiprocessors that each process may use; None = all.

    Raises:
        DeviceError: there is no MPS here, or it does not start.
    """
    if shutil.which(CONTROL) is None:
        raise DeviceError(
            f"{CONTROL} is not there",
            remedy="install the NVIDIA driver's MPS, or share the device in another way",
        )
    directory = Path(tempfile.mkdtemp(prefix="simslm-mps-"))
    settings = dict.fromkeys(_PLACES, str(directory))
    if percentage is not None:
        settings[_PART] = f"{percentage:g}"
    before = {name: os.environ.get(name) for name in (*_PLACES, _PART)}
    os.environ.update(settings)
    try:
        keeper = subprocess.Popen(
            ["/bin/sh", "-c", _KEEPER, "mps-keeper", CONTROL, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        mps = Mps(directory, keeper)
        try:
            mps.wait()
            yield mps
        finally:
            mps.end()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
