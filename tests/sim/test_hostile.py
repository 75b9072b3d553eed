"""Hostile input: every scenario ends in a correct answer or in one clear error, and never hangs or loses a request."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from support.hostile import answer, counts, never_hangs, refusal, scenario

from simslm.sim.log import FAILED, FINISHED, REJECTED
from simslm.workload.readers import FORMATS

__all__ = ["never_hangs"]

ALL_AT_ONCE = {"process": "all-at-once"}


def loop(concurrency: int, think_time_s: float = 0.0) -> dict:
    return {"process": "closed-loop", "concurrency": concurrency, "think_time_s": think_time_s}


def groups(*each: dict) -> list[dict]:
    return [{"name": f"g{i}", **one} for i, one in enumerate(each)]


# ---- what is strange, but means something: answered --------------------------------------------------------

FINE = {
    "rate of 1e9": {"workload__arrivals": {"process": "poisson", "rate_rps": 1e9}},
    "rate of 1e-6": {"workload__arrivals": {"process": "poisson", "rate_rps": 1e-6}},
    "gaps of cv 1000": {"workload__arrivals": {"process": "gamma", "rate_rps": 1, "cv": 1e3}},
    "all at one instant": {"workload__arrivals": ALL_AT_ONCE},
    "one request": {"workload__num_requests": 1},
    "one token in, one out": {
        "workload__prompt_tokens": {"dist": "fixed", "value": 1},
        "workload__output_tokens": {"dist": "fixed", "value": 1},
    },
    "a swing shorter than a request": {
        "workload__arrivals": {"process": "diurnal", "rate_rps": 5, "amplitude": 1, "period_s": 1e-6}
    },
    "a state in which nothing arrives": {
        "workload__arrivals": {"process": "mmpp", "rates_rps": [0, 50], "mean_dwell_s": [100, 0.1]}
    },
    "more clients than requests": {"workload__arrivals": loop(1000)},
    "10^30 clients": {"workload__arrivals": loop(10**30)},
    "one client without a thought": {"workload__arrivals": loop(1)},
    "clients who think for a year": {"workload__arrivals": loop(2, 3.2e7)},
    "the smallest think time": {"workload__arrivals": loop(3, 5e-324)},
    "a duration in which one arrives": {
        "workload__num_requests": None,
        "workload__duration_s": 1e-12,
        "workload__arrivals": {"process": "deterministic", "rate_rps": 1},
    },
    "a duration far beyond the requests": {"workload__duration_s": 1e308},
    "the largest seed": {"seed": 2**63 - 1},
    "blocks of one token": {"deployment__engine__block_size": 1, "deployment__engine__num_gpu_blocks": 9000},
    "blocks of 4096 tokens": {"deployment__engine__block_size": 4096},
    "one sequence at a time": {"deployment__engine__max_num_seqs": 1},
    "one token an iteration": {
        "deployment__engine__max_num_seqs": 1,
        "deployment__engine__max_num_batched_tokens": 1,
    },
    "one block more than the longest needs": {"deployment__engine__num_gpu_blocks": 23},
    "watermark of 0.99": {"deployment__engine__watermark": 0.99},
    "watermark of 0": {"deployment__engine__watermark": 0, "deployment__engine__num_gpu_blocks": 30},
    "no room on the host to swap to": {
        "deployment__engine__preemption": "swap",
        "deployment__engine__swap_space": 0,
        "deployment__engine__num_gpu_blocks": 30,
    },
    "a timeout that never comes": {"workload__timeout_s": 1e308},
    "one priority for all": {"workload__priorities": [{"value": 0, "share": 1}]},
    "priorities at both ends": {
        "workload__priorities": [{"value": -(2**53), "share": 1e9}, {"value": 2**53, "share": 1e-300}],
        "deployment__engine__scheduling_policy": "priority",
    },
    "shared prefixes without a cache": {"workload__prefixes": {"count": 3, "tokens": 64}},
    "prefixes longer than any prompt": {
        "workload__prefixes": {"count": 2, "tokens": 10**6},
        "deployment__engine__prefix_caching": True,
    },
    "prefixes on blocks larger than they are": {
        "workload__prefixes": {"count": 2, "tokens": 64},
        "deployment__engine__prefix_caching": True,
        "deployment__engine__block_size": 4096,
    },
    "prefixes in a cache of hardly any blocks": {
        "workload__prefixes": {"count": 5, "tokens": 96},
        "deployment__engine__prefix_caching": True,
        "deployment__engine__num_gpu_blocks": 23,
    },
    "64 replicas on a device": {
        "deployment__replicas_per_device": 64,
        "deployment__sharing": "mps",
        "deployment__engine__num_gpu_blocks": 50,
        "deployment__engine__max_num_batched_tokens": 64,
        "deployment__engine__max_num_seqs": 2,
    },
    "more replicas than requests": {"deployment__num_devices": 200},
    "a group that gets next to nothing": {
        "deployment": {
            "num_devices": 2,
            "groups": groups({"share": 1e-300, "devices": [0]}, {"devices": [1]}),
        }
    },
    "a name in many scripts": {"name": "名前 📈 ñ \u202e اسم"},
    "a name that is a path": {"name": "../../etc/passwd"},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", FINE)
def test_what_is_strange_but_sound_is_answered(case):
    result = answer(scenario(**FINE[case]))
    finished, rejected, failed = counts(result)
    assert (rejected, failed) == (0, 0)
    expected = 1 if "one request" in case or "one arrives" in case else 40
    assert finished == expected
    json.dumps(result.summary, allow_nan=False)


# ---- what cannot be served, request by request -------------------------------------------------------------


def test_a_million_token_prompt_among_others_is_rejected():
    mixture = [
        {"dist": "fixed", "value": 10**6, "weight": 1},
        {"dist": "fixed", "value": 10**9, "weight": 1},
        {"dist": "fixed", "value": 20, "weight": 2},
    ]
    result = answer(scenario(workload__prompt_tokens={"dist": "mixture", "components": mixture}))
    finished, rejected, failed = counts(result)
    assert failed == 0
    served = result.request_columns["prompt_tokens"] == 20
    assert np.array_equal(result.request_columns["status"] == FINISHED, served)
    assert 0 < rejected == 40 - finished == np.count_nonzero(~served)


@pytest.mark.parametrize("arrivals", [ALL_AT_ONCE, loop(3), loop(3, 0.5)])
def test_one_block_serves_who_fits_in_it(arrivals):
    lengths = {"dist": "uniform", "low": 1, "high": 12}
    result = answer(
        scenario(
            workload__arrivals=arrivals,
            workload__prompt_tokens=lengths,
            workload__output_tokens=lengths,
            deployment__engine__num_gpu_blocks=1,
        )
    )
    requests = result.request_columns
    fits = requests["prompt_tokens"] + requests["output_tokens"] - 1 <= 16
    assert counts(result) == (np.count_nonzero(fits), np.count_nonzero(~fits), 0)
    assert np.array_equal(requests["status"] == FINISHED, fits)


@pytest.mark.parametrize("patience", [5e-324, 1e-12, 1e-3])
@pytest.mark.parametrize(
    "arrivals", [ALL_AT_ONCE, loop(2), loop(2, 1.0), {"process": "poisson", "rate_rps": 9}]
)
def test_clients_without_patience_all_fail(patience, arrivals):
    result = answer(
        scenario(
            workload__arrivals=arrivals,
            workload__timeout_s=patience,
            workload__output_tokens={"dist": "fixed", "value": 50},
        )
    )
    assert counts(result) == (0, 0, 40)
    assert result.summary["throughput"]["output_tokens_per_s"] in (0, None)


@pytest.mark.parametrize("engine", [{}, {"preemption": "swap"}, {"prefix_caching": True}])
def test_all_clients_cancel_at_any_time(engine):
    """On few blocks: while they wait, prefill, decode, and are preempted."""
    given = scenario(
        workload__num_requests=300,
        workload__arrivals={"process": "poisson", "rate_rps": 2000},
        workload__cancellations={"share": 1.0, "mean_after_s": 0.1},
        workload__prefixes={"count": 3, "tokens": 48},
        deployment__engine__num_gpu_blocks=40,
    )
    given["deployment"]["engine"] |= engine
    result = answer(given)
    finished, rejected, failed = counts(result)
    assert rejected == 0
    assert finished > 20
    assert failed > 20
    left = result.request_columns["status"] == FAILED
    assert np.isnan(result.request_columns["finish_s"][left]).all()


def test_nobody_is_let_in_beyond_a_queue_of_none():
    result = answer(
        scenario(
            workload__arrivals=ALL_AT_ONCE,
            deployment__engine__admission={"policy": "limits", "max_queue": 1},
        )
    )
    finished, rejected, _ = counts(result)
    assert finished >= 1
    assert rejected == np.count_nonzero(result.request_columns["status"] == REJECTED) >= 30


# ---- what makes no sense -----------------------------------------------------------------------------------

INF, NAN = math.inf, math.nan
POISSON = {"process": "poisson", "rate_rps": 20}

REFUSED = {
    "zero prompt tokens": ({"workload__prompt_tokens": {"dist": "fixed", "value": 0}}, 2, "prompt_tokens"),
    "zero output tokens": ({"workload__output_tokens": {"dist": "uniform", "low": 0, "high": 5}}, 2, "low"),
    "only million-token prompts": (
        {"workload__prompt_tokens": {"dist": "fixed", "value": 10**6}},
        2,
        "none of the 40 requests can be served",
    ),
    "a prompt of 10^30 tokens": ({"workload__prompt_tokens": {"dist": "fixed", "value": 10**30}}, 2, "value"),
    "no requests": ({"workload__num_requests": 0}, 2, "num_requests"),
    "10^30 requests": ({"workload__num_requests": 10**30}, 2, "num_requests"),
    "half a request": ({"workload__num_requests": 1.5}, 2, "num_requests"),
    "no blocks": ({"deployment__engine__num_gpu_blocks": 0}, 2, "num_gpu_blocks"),
    "more blocks than memory": ({"deployment__engine__num_gpu_blocks": 10**15}, 4, "does not fit"),
    "rate of 1e-9": ({"workload__arrivals": {"process": "poisson", "rate_rps": 1e-9}}, 2, "arrives after"),
    "rate of 5e-324": (
        {"workload__arrivals": {"process": "poisson", "rate_rps": 5e-324}},
        2,
        "arrives after",
    ),
    "rate of 0": ({"workload__arrivals": {"process": "poisson", "rate_rps": 0}}, 2, "rate_rps"),
    "rate of infinity": ({"workload__arrivals": {"process": "poisson", "rate_rps": INF}}, 2, "finite"),
    "rate of nan": ({"workload__arrivals": {"process": "poisson", "rate_rps": NAN}}, 2, "finite"),
    "rate in words": ({"workload__arrivals": {"process": "poisson", "rate_rps": "fast"}}, 2, "rate_rps"),
    "cv of 1e-200": ({"workload__arrivals": {"process": "gamma", "rate_rps": 1, "cv": 1e-200}}, 2, "cv"),
    "states that change all the time": (
        {"workload__arrivals": {"process": "mmpp", "rates_rps": [1, 2], "mean_dwell_s": [1e-9, 1e-9]}},
        2,
        "state changes about",
    ),
    "a duration of 0": ({"workload__duration_s": 0}, 2, "duration_s"),
    "a duration without arrivals": (
        {"workload__num_requests": None, "workload__duration_s": 1e-12},
        2,
        "no request arrives",
    ),
    "a duration in which too many arrive": (
        {"workload__num_requests": None, "workload__duration_s": 1e308},
        2,
        "can be simulated",
    ),
    "no clients": ({"workload__arrivals": loop(0)}, 2, "concurrency"),
    "clients who think for ever": ({"workload__arrivals": loop(1, 1e300)}, 2, "arrives after"),
    "clients who think backwards": ({"workload__arrivals": loop(1, -1.0)}, 2, "think_time_s"),
    "a seed of -1": ({"seed": -1}, 2, "seed"),
    "a seed of 2^63": ({"seed": 2**63}, 2, "seed"),
    "a seed in words": ({"seed": "lucky"}, 2, "seed"),
    "blocks of no tokens": ({"deployment__engine__block_size": 0}, 2, "block_size"),
    "blocks of 10^9 tokens": ({"deployment__engine__block_size": 10**9}, 2, "block_size"),
    "a watermark of everything": ({"deployment__engine__watermark": 1.0}, 2, "watermark"),
    "fewer tokens than sequences": ({"deployment__engine__max_num_batched_tokens": 1}, 2, "max_num_seqs"),
    "a timeout of 0": ({"workload__timeout_s": 0}, 2, "timeout_s"),
    "a timeout of nan": ({"workload__timeout_s": NAN}, 2, "timeout_s"),
    "priorities without a share": ({"workload__priorities": [{"value": 1}]}, 2, "share"),
    "priorities beyond 64 bits": ({"workload__priorities": [{"value": 10**30, "share": 1}]}, 2, "value"),
    "prefixes without number": ({"workload__prefixes": {"count": 10**18, "tokens": 10**18}}, 2, "prefixes"),
    "64 replicas on a device that holds one": (
        {
            "model": "llama-2-13b",
            "deployment__replicas_per_device": 64,
            "deployment__sharing": "mps",
        },
        4,
        "does not fit",
    ),
    "65 replicas on a device": (
        {"deployment__replicas_per_device": 65, "deployment__sharing": "mps"},
        2,
        "replicas_per_device",
    ),
    "replicas that share without a way to": ({"deployment__replicas_per_device": 2}, 2, "sharing"),
    "tensor parallel beyond the devices": (
        {"deployment__tensor_parallel_size": 8},
        2,
        "tensor_parallel_size",
    ),
    "a group on a device that does not exist": (
        {"deployment": {"num_devices": 1, "groups": groups({"devices": [7]})}},
        2,
        "device 7 does not exist",
    ),
    "a group on a negative device": (
        {"deployment": {"num_devices": 2, "groups": groups({"devices": [-1]})}},
        2,
        "devices",
    ),
    "a share of nothing": (
        {"deployment": {"num_devices": 2, "groups": groups({"share": 0, "devices": [0]}, {"devices": [1]})}},
        2,
        "share",
    ),
    "a name of nothing": ({"name": ""}, 2, "name"),
    "a section that is a list": ({"deployment": [1, 2]}, 2, "deployment"),
    "a key in another script": ({"workload__arrivals": POISSON | {"räte_rps": 3}}, 2, "räte_rps"),
    "a model that is a number": ({"model": 7}, 2, "model"),
    "a trace that is not there": ({"cost": {"trace": "nowhere"}}, 3, "nowhere"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_is_one_clear_error(case):
    changes, exit_code, message = REFUSED[case]
    error = refusal(scenario(**changes))
    assert error.exit_code == exit_code
    assert message in str(error)


# ---- files -------------------------------------------------------------------------------------------------

HEADER = "arrival_s,prompt_tokens,output_tokens"
GOOD_FILES = {
    "CRLF": f"{HEADER}\r\n0,5,6\r\n1,7,8",
    "a byte order mark": f"\ufeff{HEADER}\n0,5,6\n1,7,8\n",
    "blank lines": f"{HEADER}\n\n0,5,6\n\n\n1,7,8\n\n",
    "quoted fields": '"arrival_s","prompt_tokens","output_tokens"\n"0","5","6"\n"1","7","8"\n',
    "exponents": f"{HEADER}\n0e0,5,6\n1.0E+0,7,8\n",
    "negative times": f"{HEADER}\n-1e3,5,6\n-999,7,8\n",
    "the wrong order": f"{HEADER}\n1,7,8\n0,5,6\n",
    "equal times": f"{HEADER}\n1,5,6\n1,7,8\n",
    "twice the same request": f"{HEADER}\n1,5,6\n1,5,6\n",
    "further columns": f"id,{HEADER},x\n1,0,5,6,\n1,1,7,8,é\n",
    "a client who leaves at once": f"{HEADER},patience_s\n0,5,6,\n1,7,8,0\n",
}


@pytest.mark.parametrize("case", GOOD_FILES)
def test_a_strange_but_sound_file_is_replayed(case, tmp_path):
    (tmp_path / "trace.csv").write_bytes(GOOD_FILES[case].encode())
    given = scenario(workload={"replay": {"format": "csv", "path": str(tmp_path / "trace.csv")}})
    result = answer(given)
    assert counts(result) == ((1, 0, 1) if "leaves" in case else (2, 0, 0))
    requests = result.request_columns
    assert requests["prompt_tokens"].tolist() == ([5, 5] if "twice" in case else [5, 7])
    assert requests["arrival_s"].tolist() == ([0, 0] if "equal" in case or "twice" in case else [0, 1])


BAD_FILES = {
    "nothing": "",
    "a header only": f"{HEADER}\n",
    "no header": "0,5,6\n1,7,8\n",
    "a row cut short": f"{HEADER}\n0,5,6\n1,7",
    "no tokens": f"{HEADER}\n0,0,6\n",
    "a time of nan": f"{HEADER}\nnan,5,6\n",
    "a time of infinity": f"{HEADER}\n1e999,5,6\n",
    "times a lifetime of stars apart": f"{HEADER}\n-1e300,5,6\n1e300,5,6\n",
    "tokens beyond 64 bits": f"{HEADER}\n0,99999999999999999999,6\n",
    "an open quote": f'{HEADER}\n0,"5,6\n1,7,8\n',
    "a zero byte": f"{HEADER}\n0,5\x00,6\n",
    "no text": bytes(range(256)) * 4,
    "a picture of a CSV": b"\x89PNG\r\n\x1a\n" + bytes(100),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_damaged_file_is_one_clear_error(case, tmp_path):
    content = BAD_FILES[case]
    (tmp_path / "trace.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    given = scenario(workload={"replay": {"format": "csv", "path": str(tmp_path / "trace.csv")}})
    assert refusal(given).exit_code == 2


@pytest.mark.slow
@pytest.mark.parametrize("format_", ["auto", *FORMATS])
def test_every_format_names_the_file_it_cannot_use(format_, tmp_path):
    path = tmp_path / "trace"
    for content in (b"", b"\n\n", b"\x00\x01\x02" * 50, b"{}", b"[]", b"a,b\n1,2\n", b'{"timestamp": 1}'):
        path.write_bytes(content)
        error = refusal(scenario(workload={"replay": {"format": format_, "path": str(path)}}))
        assert error.exit_code == 2
        assert error.where.startswith(str(path))


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, 0.999])
def test_a_truncated_trace_is_one_clear_error(kept, tmp_path):
    """What a cost is read from, and what lengths are drawn from, cut at any place."""
    import shutil

    source = Path(__file__).parents[2] / "traces" / "cpu" / "opt-125m-bf16"
    shutil.copytree(source, tmp_path / "trace")
    table = tmp_path / "trace" / "iterations.parquet"
    whole = table.read_bytes()
    table.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    error = refusal(scenario(device="cpu", cost={"trace": str(tmp_path / "trace")}))
    assert error.exit_code == 3
    lengths = {"dist": "empirical", "file": str(table), "column": "decode_seqs"}
    assert refusal(scenario(workload__prompt_tokens=lengths)).exit_code == 2
