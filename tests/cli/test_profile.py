"""``simslm profile``: what it refuses before it measures anything."""

from __future__ import annotations

import json
import sys

import pytest

from simslm.cli.options import Measured
from simslm.errors import UsageError


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--model", "opt-126m"), 2, "did you mean 'opt-125m'"),
        (("--model", "opt-125m", "--threads", "100000"), 2, "is more than the"),
        (("--model", "opt-125m", "-o", "thesis.txt"), 2, "is a file, not a directory"),
        (("--model", "opt-125m", "-o", "thesis.txt/deeper"), 2, "no directory can be made there"),
        (("--model", "opt-125m", "--reach", "8,520"), 2, "e.g. --reach 32,2048,512"),
        (("--model", "opt-125m", "--reach", "8,0,72"), 2, "not 3 numbers above 0"),
        (("--model", "opt-125m", "--replicas", "one"), 2, "is no list of numbers"),
        (
            ("--model", "opt-125m", "--engine", "transformers", "--replicas", "1,2"),
            2,
            "with the engine simslm only, not with transformers",
        ),
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


def test_the_choice_of_engines_is_the_profilers():
    choice = pytest.importorskip("profiler.engines.choice")
    assert [each.value for each in Measured] == list(choice.ENGINES)
    for name in choice.ENGINES:
        assert choice.choose_engine(name).__name__.lower().endswith("engine")
    with pytest.raises(UsageError, match="did you mean 'transformers'"):
        choice.choose_engine("transformer")


@pytest.mark.parametrize(
    ("engine", "remedy"),
    [("vllm", "pip install vllm"), ("transformers", "pip install 'simslm[transformers]'")],
)
def test_an_engine_that_is_not_installed_exits_5(simslm, here, monkeypatch, engine, remedy):
    pytest.importorskip("torch")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    monkeypatch.setitem(sys.modules, engine, None)
    ended = simslm("profile", "--model", "opt-125m", "--device", "cpu", "--engine", engine)
    assert ended.code == 5
    assert f"{engine} is not installed" in ended.complaint
    assert remedy in ended.complaint
    assert not list(here.iterdir())


def test_what_was_asked_reaches_the_campaign(simslm, here, monkeypatch, trace):
    campaign = pytest.importorskip("profiler.campaign")
    asked = {}

    def measure(specification, **options):
        asked.update(vars(specification), **options)
        return trace

    monkeypatch.setattr(campaign, "profile", measure)
    said = ("--engine", "transformers", "--reach", "8,520,72")
    ended = simslm("profile", "--model", "opt-125m", "--device", "cpu", *said)
    assert ended.code == 0
    assert "operators (kernels.parquet) are not measured of transformers" in ended.err
    assert asked["engine"] == "transformers"
    assert asked["reach"] == (8, 520, 72)
    assert asked["command"].endswith(" ".join(said))


def test_without_torch_it_says_what_to_install(simslm, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] in ("profiler", "torch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    ended = simslm("profile", "--model", "opt-125m", "--device", "cpu")
    assert ended.code == 5
    assert "pip install 'simslm[profile]'" in ended.complaint


@pytest.mark.slow
@pytest.mark.parametrize(("grid", "least", "most"), [("quick", 150, 240), ("full", 540, 660)])
@pytest.mark.parametrize("model", ["opt-125m", "opt-1.3b", "llama-3.1-8b"])
def test_a_plan_needs_no_device(simslm, here, model, grid, least, most):
    """Quick takes about three minutes on an H200, full about ten, whatever the model."""
    pytest.importorskip("torch")
    asked = ("--model", model, "--device", "h200", "--grid", grid, "--plan")
    ended = simslm("profile", *asked, "--json")
    assert ended.code == 0
    found = json.loads(ended.out)
    assert least <= found["seconds"] <= most
    assert found["needed_bytes"] < found["memory_bytes"]
    assert sum(found["areas"].values()) > 40
    shown = simslm("profile", *asked).out
    assert f"{model} in bf16 on h200, grid {grid}: {sum(found['areas'].values())} shapes" in shown
    assert "with iterations as the roofline has them" in shown
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (("--sharing", "mpz", "--replicas", "2"), "did you mean 'mps'"),
        (("--quantization", "int8", "--replicas", "1,2"), "replicas are measured without quantization"),
        (("--engine", "vllm", "--replicas", "1,2"), "engine simslm only, not with vllm"),
        (("--reach", "8,x"), "not 3 numbers above 0"),
    ],
)
def test_a_plan_refuses_what_would_not_be_measured(simslm, here, said, complaint):
    pytest.importorskip("torch")
    ended = simslm("profile", "--model", "opt-125m", "--device", "h200", "--plan", *said)
    assert ended.code == 2
    assert complaint in ended.complaint


def test_a_plan_says_that_weights_of_eight_bits_take_less(simslm, here):
    pytest.importorskip("torch")
    ended = simslm("profile", "--model", "opt-125m", "--device", "h200", "--plan", "--quantization", "int8")
    assert ended.code == 0
    assert "planned with weights in bf16; in int8 they take less memory and time" in ended.err


def test_a_plan_of_replicas_adds_their_windows_to_what_one_takes(simslm, here):
    pytest.importorskip("torch")

    def seconds(*more):
        ended = simslm("profile", "--model", "opt-125m", "--device", "h200", "--plan", "--json", *more)
        assert ended.code == 0
        return json.loads(ended.out)["seconds"]

    alone, both = seconds(), seconds("--replicas", "1,2", "--sharing", "mps,time-slice")
    only = seconds("--replicas", "2", "--sharing", "mps,time-slice")
    assert both == pytest.approx(alone + only)
    assert only == pytest.approx(2 * seconds("--replicas", "2", "--sharing", "mps"))


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--model", "opt-125m", "--device", "h201"), 2, "did you mean 'h200'"),
        (("--model", "opt-6.7b", "--device", "l4", "--dtype", "fp32"), 4, "no shape of the grid fits"),
    ],
)
def test_a_plan_says_what_cannot_be(simslm, here, options, code, words):
    pytest.importorskip("torch")
    ended = simslm("profile", *options, "--plan")
    assert ended.code == code
    assert words in ended.complaint


def test_a_plan_for_a_gpu_that_is_not_there_asks_for_its_name(simslm, here):
    torch = pytest.importorskip("torch")
    device = f"cuda:{torch.cuda.device_count()}"
    ended = simslm("profile", "--model", "opt-125m", "--device", device, "--plan")
    assert ended.code == 5
    assert "--device h200" in ended.complaint
