"""``simslm profile``: what it refuses before it measures anything."""

from __future__ import annotations

import sys

import pytest


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--model", "opt-126m"), 2, "did you mean 'opt-125m'"),
        (("--model", "opt-125m", "--threads", "100000"), 2, "is more than the"),
        (("--model", "opt-125m", "-o", "thesis.txt"), 2, "is a file, not a directory"),
        (("--model", "opt-125m", "-o", "thesis.txt/deeper"), 2, "no directory can be made there"),
    ],
)
def test_what_is_refused(simslm, here, options, code, words):
    pytest.importorskip("torch")
    (here / "thesis.txt").write_text("precious", encoding="utf-8")
    ended = simslm("profile", "--device", "cpu", *options)
    assert ended.code == code
    assert words in ended.complaint
    assert [path.name for path in here.iterdir()] == ["thesis.txt"]
    assert (here / "thesis.txt").read_text(encoding="utf-8") == "precious"


def test_a_device_that_is_not_there_exits_5(simslm, here):
    torch = pytest.importorskip("torch")
    ended = simslm("profile", "--model", "opt-125m", "--device", f"cuda:{torch.cuda.device_count()}")
    assert ended.code == 5
    assert "simslm env" in ended.complaint
    assert not list(here.iterdir())


def test_without_torch_it_says_what_to_install(simslm, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] in ("profiler", "torch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    ended = simslm("profile", "--model", "opt-125m", "--device", "cpu")
    assert ended.code == 5
    assert "pip install 'simslm[profile]'" in ended.complaint
