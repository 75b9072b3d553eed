"""The page of a trace: from its directory alone, whatever it holds."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support.pages import own, valid
from support.traces import SLOWDOWN, gpu_trace, latency_s

from simslm.catalog.devices import load_device
from simslm.cost.portrait import portrait
from simslm.errors import UsageError
from simslm.report.colocation import matrices
from simslm.report.operators import Ceilings, operator_rows, operators
from simslm.report.profile import render_profile, view, write_profile
from simslm.traces.files import Trace, is_trace, read_trace, write_trace

TRACES = Path(__file__).parents[2] / "traces"
SHIPPED = (
    "cpu/opt-125m-bf16",
    "cpu/smollm2-135m-bf16",
    "h100-64gb/opt-2.7b-fp16",
    "h100-64gb/llama-2-7b-fp16",
)
EVIL = "</script><script>document.title='broken'</script>@accent"


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return gpu_trace(tmp_path_factory.mktemp("traces") / "gpu")


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_every_trace_that_ships_has_a_page(name):
    shown = view(portrait(read_trace(TRACES / name)))
    assert {"decode", "surface", "prefill", "host"} <= {plot.id for plot in shown.plots}
    assert all(valid(plot.figure).data for plot in shown.plots)
    assert bool(shown.terms) == name.startswith("h100")
    assert bool(shown.roofline) == name.startswith("cpu")


def test_a_trace_of_a_gpu_has_everything(gpu):
    shown = view(portrait(gpu))
    assert [plot.id for plot in shown.plots] == [
        "decode", "surface", "prefill", "host", "roofline", "heldout", "power", "clocks", "colocation-0", "colocation-1"
    ]  # fmt: skip
    assert all(valid(plot.figure).data for plot in shown.plots)
    assert shown.no_power == shown.no_colocation == ""
    assert shown.power_words == "With nothing running: 70 W."
    power = next(plot for plot in shown.plots if plot.id == "power")
    assert power.figure["layout"]["yaxis"]["title"]["text"] == "power, W"


def test_the_points_drawn_are_the_medians_measured(gpu):
    decode = next(plot for plot in view(portrait(gpu)).plots if plot.id == "decode")
    lines = decode.figure["data"][::2]
    marks = decode.figure["data"][1::2]
    assert len(lines) == len(marks) == 3
    for context, each in zip((32, 256, 1024), marks, strict=True):
        expected = [1e3 * 1.005 * latency_s((batch, batch * context, 0, 0, 0)) for batch in each["x"]]
        assert each["y"] == pytest.approx(expected, rel=1e-5)
    for line, each in zip(lines, marks, strict=True):
        at = [line["x"].index(batch) for batch in each["x"]]
        assert [line["y"][i] for i in at] == pytest.approx(each["y"], rel=0.03)


def test_replicas_beside_each_other_are_held_against_the_same_iteration_alone(gpu):
    found = {each.sharing: each for each in matrices(gpu.iterations)}
    assert list(found) == ["mps", "time-slice"]
    assert found["mps"].own == ["decode 4", "decode 64"]
    assert found["mps"].others == ["1 × decode 4", "1 × decode 64", "3 × decode 4", "3 × decode 64"]
    # the middle of three repeats is the first, that of four lies between two
    expected = SLOWDOWN["mps", 4] / 1.005
    assert found["mps"].slowdown[1, 3] == pytest.approx(expected)
    assert np.isnan(found["mps"].slowdown[0, 1])


def test_an_operator_at_half_of_its_roofline_says_so(gpu):
    peaks = Ceilings.of(gpu.kernels, load_device("h100-80gb"), "bf16")
    assert peaks is not None
    rows = {row[0]: row for row in operator_rows(operators(gpu.kernels), peaks)}
    assert rows["mlp"][4] == "50 %"
    assert rows["mlp"][1] == "4"
    assert rows["kv_write"][5] == "bandwidth"
    assert set(rows) == {"attention", "kv_write", "mlp"}
    drawn = {
        each["name"]
        for plot in view(portrait(gpu)).plots
        if plot.id == "roofline"
        for each in plot.figure["data"]
    }
    assert drawn == {"ceiling", "attention", "mlp"}


def test_measured_ceilings_take_the_place_of_the_catalogue_s(gpu):
    extra = [
        {"op": "ceiling_matmul", "tokens": 8192, "latency_s": 2.0, "flops": 8e14, "bytes": 1e6},
        {"op": "ceiling_copy", "tokens": 0, "latency_s": 1.0, "flops": 0.0, "bytes": 2e12},
        {"op": "ceiling_read", "tokens": 0, "latency_s": 1.0, "flops": 0.0, "bytes": 3e12},
    ]
    rows = [{"seqs": 0, "ctx_tokens": 0, "repeat": 0} | row for row in extra]
    kernels = pa.concat_tables([gpu.kernels, pa.Table.from_pylist(rows, schema=gpu.kernels.schema)])
    found = Ceilings.of(kernels, None, "bf16")
    assert found == Ceilings(4e14, 3e12, "measured on this device")
    assert [each.name for each in operators(kernels)] == ["attention", "kv_write", "mlp"]
    shown = view(portrait(replace(gpu, kernels=kernels)))
    assert shown.ceilings.startswith("Ceilings, measured on this device: 400 TFLOP/s in bf16 and 3,000 GB/s")
    assert Ceilings.of(gpu.kernels, None, "bf16") is None


def test_held_out_points_are_counted_and_the_worst_comes_first(gpu):
    shown = view(portrait(gpu))
    assert shown.heldout_words.startswith("The model is not made from these 2 points. Median error ")
    errors = [abs(float(row[0].removesuffix(" %"))) for row in shown.heldout_rows]
    assert errors == sorted(errors, reverse=True)
    assert 1 < errors[0] < 10


def test_a_model_that_the_catalogue_does_not_know_still_has_what_was_measured(tmp_path):
    trace = gpu_trace(tmp_path / "own", model=f"my-own{EVIL}", device="h100-80gb")
    found = portrait(trace)
    shown = view(found)
    assert "the catalogue does not know" in shown.notes[0]
    assert [plot.id for plot in shown.plots][:3] == ["decode", "prefill", "host"]
    page = render_profile(found)
    assert EVIL not in own(page)
    assert all(valid(plot.figure).data for plot in shown.plots)


def test_a_trace_without_decoding_says_so(tmp_path, gpu):
    rows = gpu.iterations.filter((np.array(gpu.iterations["decode_seqs"]) == 0).tolist())
    trace = write_trace(tmp_path / "half", provenance=gpu.provenance, iterations=rows)
    shown = view(portrait(trace))
    assert "no decode-only iterations" in " ".join(what for _, what, *_ in shown.findings)
    assert shown.sentence == "Nothing was measured of decoding alone."
    assert shown.notes
    assert [plot.id for plot in shown.plots] == ["prefill"]


def test_one_measured_point_of_each_kind_is_enough_for_a_page(tmp_path, gpu):
    table = gpu.iterations.to_pandas().query("replicas == 1")
    rows = table.query(
        "(decode_seqs == 1 and decode_ctx_tokens == 32 and prefill_seqs == 0) or "
        "(decode_seqs == 0 and prefill_tokens == 64 and prefill_ctx_tokens == 0)"
    )
    trace = write_trace(tmp_path / "small", provenance=gpu.provenance, iterations=rows)
    shown = view(portrait(trace))
    assert all(valid(plot.figure).data for plot in shown.plots)
    assert len(shown.tiles) >= 2


def test_terms_come_with_their_standard_errors():
    rows = {row[0]: row for row in view(portrait(read_trace(TRACES / "h100-64gb/opt-2.7b-fp16"))).terms}
    assert rows["host"][1:4] == ("499 µs", "74.8 µs", "15 %")
    assert rows["idle_power"][2:4] == ("not fitted", "–")
    assert rows["prefill_attention"][3].endswith("the runs hardly tell it")
    assert rows["host"][4] == "host time of an iteration, in which no kernel runs"


def test_the_page_is_offline_small_and_the_same_again(gpu, tmp_path):
    page = write_profile(portrait(gpu), tmp_path / "page.html").read_text(encoding="utf-8")
    assert page == render_profile(portrait(read_trace(gpu.path)))
    assert len(page) < 4_000_000
    assert not re.search(r"(?:src|href)=[\"'](?!#)", own(page))


def test_a_run_is_no_trace(gpu, quiet_run, tmp_path):
    assert is_trace(gpu.path)
    assert not is_trace(quiet_run)
    assert not is_trace(tmp_path)


def test_the_command_knows_a_trace_and_takes_it_alone(gpu, quiet_run, tmp_path, capsys):
    from simslm.cli.report import report

    report([gpu.path], tmp_path / "gpu.html", False, False)
    assert capsys.readouterr().out == f"{tmp_path / 'gpu.html'}\n"
    assert (tmp_path / "gpu.html").read_text(encoding="utf-8") == render_profile(portrait(gpu))
    with pytest.raises(UsageError, match="a trace has a page of its own"):
        report([gpu.path, quiet_run], tmp_path / "both.html", False, False)
    assert not (tmp_path / "both.html").exists()
