"""What others do is told from what this process does."""

import subprocess
import sys
import time

import pytest

from profiler.measure import company
from profiler.measure.company import Company


def stat(busy):
    """A first line of /proc/stat, in ticks; 900 of them idle or waiting."""
    user, nice, system, steal = busy
    return f"cpu  {user} {nice} {system} 800 100 0 0 {steal} 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\n"


def test_steal_and_other_programs_are_company(tmp_path, monkeypatch):
    monkeypatch.setattr(company, "_STAT", tmp_path / "stat")
    monkeypatch.setattr(company, "_TICKS_PER_S", 100)
    monkeypatch.setattr(company.os, "cpu_count", lambda: 2)
    clock, own = iter([0.0, 10.0]), iter([(1.0, 0.0, 0.0, 0.0, 0.0), (3.0, 1.0, 0.0, 0.0, 0.0)])
    monkeypatch.setattr(company.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(company.os, "times", lambda: next(own))
    (tmp_path / "stat").write_text(stat((100, 0, 0, 0)))
    found = Company()
    (tmp_path / "stat").write_text(stat((400, 100, 100, 200)))
    assert found.share() == pytest.approx((7.0 - 3.0) / 20.0)


def test_without_such_a_file_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(company, "_STAT", tmp_path / "nothing")
    assert Company().share() is None


@pytest.mark.skipif(not company._STAT.exists(), reason="this system has no /proc/stat")
def test_a_busy_neighbour_is_seen():
    code = "import time; end = time.time() + 30\nwhile time.time() < end: pass"
    neighbour = subprocess.Popen([sys.executable, "-c", code])
    try:
        time.sleep(0.2)
        found = Company()
        time.sleep(0.5)
        assert found.share() > 0.5 / (company.os.cpu_count() or 1) * 0.5
    finally:
        neighbour.kill()
        neighbour.wait()
