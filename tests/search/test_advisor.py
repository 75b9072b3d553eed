"""The advisor against the same worked out from single simulations, and what it does where there is no advice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import simslm
from simslm.api import load_scenario, prepare, simulate
from simslm.errors import ScenarioError
from simslm.report import write_report
from simslm.search import files
from simslm.search.advisor import Room
from simslm.search.run import SearchResult

TRIED = [1, 4, 16, 32, 64]


@pytest.fixture
def advised(searched) -> dict:
    """Everything at once; a fifth of an H200, so that some replicas fit and not many."""
    searched["workload"]["num_requests"] = 120
    searched["deployment"] = {"engine": {"max_num_seqs": 64, "gpu_memory_utilization": 0.2}}
    searched["search"] |= {
        "method": {"name": "advisor", "epsilon": 0.3, "latency_factor": 1.5},
        "space": {"deployment.engine.max_num_seqs": list(TRIED)},
    }
    return searched


def found_by(mapping: dict, **changes: object) -> SearchResult:
    mapping["search"] |= changes
    return simslm.search(load_scenario(mapping), jobs=1)


def alone(mapping: dict, **engine: Any) -> dict:
    """The scenario without its search, with other limits."""
    plain = {key: value for key, value in mapping.items() if key != "search"}
    return plain | {"deployment": {"engine": mapping["deployment"]["engine"] | engine}}


def summary(mapping: dict) -> dict[str, Any]:
    return simulate(load_scenario(mapping), with_intervals=False).summary


def rate(run: dict[str, Any]) -> float:
    return run["throughput"]["total_tokens_per_s"]


@pytest.mark.slow
@pytest.mark.parametrize(("epsilon", "factor"), [(0.3, 1.5), (0.05, 8.0), (0.9, 1.0)])
def test_the_best_batch_is_the_one_worked_out_by_hand(advised, epsilon, factor):
    method = {"name": "advisor", "epsilon": epsilon, "latency_factor": factor}
    advice = found_by(advised, method=method).frontier["advice"]
    runs = {batch: summary(alone(advised, max_num_seqs=batch)) for batch in TRIED}
    slowest = factor * runs[32]["itl_s"]["mean"]
    good = [
        batch
        for batch, run in runs.items()
        if rate(run) > epsilon * batch * rate(runs[1]) and run["itl_s"]["mean"] <= slowest
    ]
    assert advice["best_batch"] == max(good)
    assert [row["max_num_seqs"] for row in advice["curve"]] == TRIED
    for row in advice["curve"]:
        assert row["total_tokens_per_s"] == rate(runs[row["max_num_seqs"]])
        assert row["kv_peak"] == runs[row["max_num_seqs"]]["kv"]["peak_utilization"]


@pytest.mark.slow
def test_the_three_settings_have_three_answers(advised):
    answers = {
        found_by(advised, method={"name": "advisor", "epsilon": epsilon, "latency_factor": factor}).frontier[
            "advice"
        ]["best_batch"]
        for epsilon, factor in [(0.3, 1.5), (0.05, 8.0), (0.9, 1.0)]
    }
    assert len(answers) == 3


def test_as_many_replicas_as_fit_have_the_blocks_that_they_need(advised):
    result = found_by(advised)
    advice = result.frontier["advice"]
    batch, memory = advice["best_batch"], advice["memory"]
    run = summary(alone(advised, max_num_seqs=batch))
    blocks = run["kv"]["num_gpu_blocks"]
    filled = round(run["kv"]["peak_utilization"] * blocks)
    assert filled <= 0.99 * memory["num_gpu_blocks"] < filled + 1  # the watermark's hundredth on top
    fits = memory["replicas_fit"]
    assert 2 < fits < 64
    for count, enough in ((fits, True), (fits + 1, False)):
        shared = alone(advised, max_num_seqs=batch)
        shared["deployment"] |= {"replicas_per_device": count, "sharing": "mps"}
        room = prepare(load_scenario(shared)).groups[0].memory
        assert (room.fitting_blocks >= memory["num_gpu_blocks"]) is enough
        assert memory["freed_bytes"] == (blocks - memory["num_gpu_blocks"]) * room.block
    counts = [row["replicas"] for row in advice["replicas"]]
    assert counts == sorted({1, *(2**i for i in range(1, 7) if 2**i <= fits), fits})


def test_the_gains_are_those_of_the_simulated_points(advised):
    result = found_by(advised)
    advice = result.frontier["advice"]
    runs = {batch: rate(summary(alone(advised, max_num_seqs=batch))) for batch in TRIED}
    for row in advice["replicas"]:
        if row["replicas"] == 1:
            continue
        mapping = alone(
            advised, max_num_seqs=advice["best_batch"], num_gpu_blocks=advice["memory"]["num_gpu_blocks"]
        )
        mapping["deployment"] |= {"replicas_per_device": row["replicas"], "sharing": "mps"}
        run = summary(mapping)
        assert row["total_tokens_per_s"] == rate(run)
        assert row["itl_mean_s"] == run["itl_s"]["mean"]
        assert row["gain_over_best_single"] == pytest.approx(rate(run) / max(runs.values()) - 1)
        assert row["gain_over_largest_batch"] == pytest.approx(rate(run) / runs[64] - 1)
    best = max(advice["replicas"], key=lambda row: row["total_tokens_per_s"])
    assert advice["recommended"]["point"] == best["point"]
    assert advice["recommended"]["parameters"]["deployment.replicas_per_device"] == best["replicas"]


def test_the_freed_share_is_the_studys_figure(advised):
    advice = found_by(advised).frontier["advice"]
    runs = {batch: summary(alone(advised, max_num_seqs=batch)) for batch in TRIED}
    good = [
        batch
        for batch, run in runs.items()
        if rate(run) > 0.1 * batch * rate(runs[1])
        and run["tpot_s"]["mean"] <= 1.5 * runs[32]["tpot_s"]["mean"]
    ]
    batch = max(good)
    prepared = prepare(load_scenario(alone(advised, max_num_seqs=batch)))
    memory = prepared.groups[0].memory
    free = 1 - runs[batch]["kv"]["peak_utilization"]
    assert advice["memory"]["freed_share_batch"] == batch
    assert advice["memory"]["freed_share"] == pytest.approx(
        free * memory.num_gpu_blocks * memory.block / prepared.device.memory_bytes
    )


@pytest.mark.parametrize(
    ("space", "tried"),
    [({}, [1, 2, 4, 8, 16, 32, 48]), ({"deployment.engine.max_num_seqs": [8, 40]}, [1, 8, 32, 40])],
)
def test_batches_are_powers_of_two_where_none_are_stated(advised, space, tried):
    advised["deployment"]["engine"]["max_num_seqs"] = 48
    advice = found_by(advised, space=space).frontier["advice"]
    assert [row["max_num_seqs"] for row in advice["curve"]] == tried


def test_what_is_recommended_keeps_the_constraints(advised):
    free = found_by(advised).frontier["advice"]
    latencies = sorted(row["itl_mean_s"] for row in free["replicas"])
    between = (latencies[0] + latencies[1]) / 2
    bound = found_by(advised, constraints=[f"itl_s.mean <= {between}"]).frontier["advice"]
    assert [row["keeps_constraints"] for row in bound["replicas"]].count(True) == 1
    assert (
        bound["recommended"]["parameters"]["deployment.replicas_per_device"]
        == 1
        != free["recommended"]["parameters"]["deployment.replicas_per_device"]
    )
    none = found_by(advised, constraints=["itl_s.mean <= 1e-9"]).frontier["advice"]
    assert none["recommended"] is None


def test_no_advice_says_why(advised):
    advised["deployment"]["engine"] |= {"max_num_seqs": 16, "max_num_batched_tokens": 16}
    advised["workload"]["prompt_tokens"] = {"dist": "fixed", "value": 8}
    advice = found_by(advised, space={}).frontier["advice"]
    assert (advice["best_batch"], advice["replicas"], advice["recommended"]) == (None, [], None)
    assert advice["reason"].startswith("B_opt is relative to batch limits 1 and 32, and 32 could not be simu")


def test_a_search_that_is_cut_short_gives_no_advice(advised):
    asked = 0

    def obey() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise KeyboardInterrupt

    result = simslm.search(load_scenario(advised), jobs=1, obey=obey)
    assert result.interrupted
    assert result.frontier["advice"] is None


def test_other_methods_give_no_advice(searched):
    assert simslm.search(load_scenario(searched), jobs=1).frontier["advice"] is None


@pytest.mark.parametrize(
    ("section", "change", "words"),
    [
        ("deployment", {"groups": [{"name": "one"}]}, "the advisor has no answer for deployment.groups"),
        ("deployment", {"tensor_parallel_size": 2, "num_devices": 2}, "the advisor puts replicas on one device"),
        ("search", {"space": {"seed": [1, 2]}}, "the advisor varies deployment.engine.max_num_seqs alone"),
        ("search", {"capacity": {"of": "workload.arrivals.rate_rps"}}, "at the scenario's own load"),
        ("search", {"method": "grid", "space": {}}, "nothing varies"),
    ],
)  # fmt: skip
def test_what_it_cannot_answer_is_refused(advised, section, change, words):
    advised[section] |= change
    with pytest.raises(ScenarioError, match=words):
        simslm.search(load_scenario(advised), jobs=1)


@pytest.mark.parametrize(
    ("fit", "counts"), [(1, []), (2, [2]), (3, [2, 3]), (8, [2, 4, 8]), (9, [2, 4, 8, 9])]
)
def test_numbers_of_replicas(fit, counts):
    room = Room(64, 1, 1, 1, 1, 1, 1, 1)
    assert replace(room, replicas=fit).counts == counts


def test_the_page_says_it(advised, tmp_path):
    result = found_by(advised)
    files.write(tmp_path, result)
    text = write_report([tmp_path]).read_text(encoding="utf-8")
    advice = result.frontier["advice"]
    assert f"B_opt is {advice['best_batch']}." in text
    assert 'id="advice-simulate"' in text
    assert "Replicas at B_opt" in text
