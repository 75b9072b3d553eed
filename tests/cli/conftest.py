"""The command line, run inside the test's process, in an empty directory of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from simslm.cli import main

SCENARIO = """\
schema_version: 1
name: small
seed: 3
model: opt-125m
device: cpu
dtype: fp32
cost: {roofline: {}}
workload:
  num_requests: 30
  arrivals: {process: poisson, rate_rps: 2}
  prompt_tokens: {dist: fixed, value: 64}
  output_tokens: {dist: uniform, low: 1, high: 8}
deployment:
  router: {policy: round-robin}
  engine:
    max_num_seqs: 8
slo: {ttft_s: 0.5}
"""


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line of an error, without the program's name."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("simslm: ")
        return lines[0].removeprefix("simslm: ")


Run = Callable[..., Outcome]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory, the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def scenario(here: Path) -> Path:
    """A scenario that runs in milliseconds."""
    path = here / "small.yaml"
    path.write_text(SCENARIO, encoding="utf-8")
    return path


@pytest.fixture
def simslm(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``simslm("simulate", path)`` runs a command as its console script does."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["simslm", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture
def trace(here: Path, simslm: Run) -> Path:
    """A small trace of OPT-125M on a CPU, imported from a table."""
    rows = ["decode_seqs,decode_ctx_tokens,prefill_seqs,prefill_tokens,prefill_ctx_tokens,latency_s"]
    for seqs, context, prompts, tokens in _shapes():
        latency = 4e-3 + 2e-4 * (seqs + tokens) + 4e-7 * context
        rows += [
            f"{seqs},{context},{prompts},{tokens},0,{latency * (1 + repeat * 1e-3)}" for repeat in range(3)
        ]
    (here / "steps.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    place = here / "traces" / "cpu" / "mine"
    made = simslm("traces", "import", "steps.csv", "--model", "opt-125m", "--device", "cpu", "--dtype", "fp32",
                  "--engine", "mine 1", "-o", place)  # fmt: skip
    assert (made.code, made.err) == (0, "")
    assert made.out == f"{place}\n"
    return place


def _shapes() -> list[tuple[int, int, int, int]]:
    decode = [(b, b * c, 0, 0) for b in (1, 2, 4, 8) for c in (16, 256, 1024)]
    prefill = [(0, 0, 1, n) for n in (16, 64, 256, 1024)]
    mixed = [(b, b * 64, 1, n) for b in (1, 8) for n in (16, 256)]
    return decode + prefill + mixed
