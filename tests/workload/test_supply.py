"""Workloads in pieces: the same requests as at once, whenever they are asked for."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv
from pyarrow import parquet as pq

from simslm.api import load_scenario, simulate
from simslm.errors import ScenarioError
from simslm.metrics.files import RunWriter
from simslm.report import excerpt, write_report
from simslm.scenario.classes import Traffic
from simslm.scenario.workload import Workload
from simslm.workload import RequestArrays, generate, supply_of
from simslm.workload.requests import COLUMNS
from simslm.workload.supply import RequestStream

MOST = 16
OPTIONS = (
    {},
    {"from_s": 20, "to_s": 90.5},
    {"to_s": 100},
    {"thin": {"share": 0.6}},
    {"time_scale": 0.3},
    {"limit": 70},
    {"from_s": 5, "thin": {"share": 0.8}, "time_scale": 2.0, "limit": 60},
)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Files are read, and requests handed over, a few at a time."""
    monkeypatch.setattr("simslm.workload.supply.MOST_HELD", 50)
    monkeypatch.setattr("simslm.workload.supply.PIECE", MOST)
    monkeypatch.setattr("simslm.workload.readers.parquet.PIECE_ROWS", 23)
    monkeypatch.setattr("simslm.workload.readers.table._BLOCK_BYTES", 1 << 12)
    monkeypatch.setattr("simslm.workload.arrivals.PIECE", 29)


def table(count: int = 200) -> pa.Table:
    """Requests with everything a file of ours may say of them."""
    rng = np.random.default_rng(4)
    return pa.table(
        {
            "arrival_s": 7 + np.round(np.cumsum(rng.exponential(0.7, count)), 1),
            "prompt_tokens": rng.integers(1, 500, count),
            "output_tokens": rng.integers(1, 50, count),
            "priority": rng.integers(0, 3, count),
            "session_id": pa.array(
                [None if number == 3 else f"s{number}" for number in rng.integers(0, 40, count)]
            ),
            "patience_s": pa.array([None if wait > 20 else wait for wait in rng.exponential(9, count)]),
        }
    )


def written(folder, ending, rows):
    """The rows as a file of a kind, and its path."""
    path = folder / f"trace.{ending}"
    if ending == "parquet":
        pq.write_table(rows, path)
    else:
        csv.write_csv(rows, path)
    return path


def made(folder, **keys) -> RequestArrays | RequestStream:
    return supply_of(Traffic.model_validate(keys), 3, 4096, folder)


def same(stream: RequestArrays | RequestStream, whole: RequestArrays) -> None:
    """A stream gives the requests of a workload, twice, a few at a time, and says the same of all of them."""
    assert isinstance(stream, RequestStream)
    assert len(stream) == len(whole)
    for _ in range(2):
        pieces = list(stream.pieces())
        assert max(map(len, pieces)) <= MOST
        assert len(pieces) >= len(whole) / MOST
        assert sum(map(len, pieces)) == len(whole)
    found = stream.whole()
    for name in COLUMNS:
        one, other = getattr(found, name), getattr(whole, name)
        assert (one is None) == (other is None), name
        if other is not None:
            assert list(one) == list(other), name
    assert (found.source, found.notes, dict(found.dropped)) == (
        whole.source,
        whole.notes,
        dict(whole.dropped),
    )
    assert stream.mean_tokens == pytest.approx(whole.mean_tokens)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_replay_in_pieces_is_the_replay(tmp_path, ending, options):
    path = written(tmp_path, ending, table())
    given = {"replay": {"path": path.name, **options}}
    whole = generate(Workload.model_validate(given), 3, 4096, tmp_path)
    assert len(whole) > 50
    same(made(tmp_path, **given), whole)


def burst(folder):
    """Recorded rows of which every seventh failed, API calls without a session before the first conversation."""
    head = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type"
    rows = [head]
    for i in range(700):
        tokens = (0, 0, 0) if i % 7 == 0 else (10, 5, 15)
        session, kind = (f"s{i % 20}", "Conversation log") if i > 500 else ("", "API log")
        rows.append(f"{100 + i}.0,{session},2,ChatGPT,{tokens[0]},{tokens[1]},{tokens[2]},{kind}")
    (folder / "burst.csv").write_text("\n".join(rows) + "\n")
    return {"path": "burst.csv", "format": "burstgpt"}


@pytest.mark.parametrize(
    "options", [{}, {"to_s": 300}, {"limit": 300}, {"from_s": 20, "thin": {"share": 0.6}}], ids=str
)
def test_drops_and_sessions_are_those_of_the_whole_file(tmp_path, options):
    given = {"replay": burst(tmp_path) | options}
    whole = generate(Workload.model_validate(given), 3, 4096, tmp_path)
    assert sum(whole.dropped.values()) == 100
    stream = made(tmp_path, **given)
    assert isinstance(stream, RequestStream)
    assert dict(stream.dropped) == dict(whole.dropped)
    sessions = [piece.session_id for piece in stream.pieces()]
    assert all(each is not None for each in sessions)
    if whole.session_id is not None:
        assert np.concatenate(sessions).tolist() == list(whole.session_id)


def test_few_requests_of_a_long_file_are_held_without_the_rest(tmp_path, monkeypatch):
    given = {"replay": burst(tmp_path) | {"limit": 40}}
    whole = generate(Workload.model_validate(given), 3, 4096, tmp_path)
    monkeypatch.setattr("simslm.workload.classes.requests_of", None)
    found = made(tmp_path, **given)
    assert isinstance(found, RequestArrays)
    assert list(found.arrival_s) == list(whole.arrival_s)
    assert dict(found.dropped) == dict(whole.dropped)


@pytest.mark.parametrize(
    "arrivals",
    [
        {"process": "poisson", "rate_rps": 3},
        {"process": "deterministic", "rate_rps": 3},
        {"process": "mmpp", "rates_rps": [1, 9], "mean_dwell_s": [5, 5]},
        {"process": "closed-loop", "concurrency": 4},
        {"process": "clients", "rate_rps": 3, "clients": [{"share": 1, "count": 3}]},
    ],
    ids=lambda arrivals: arrivals["process"],
)
def test_generated_requests_in_pieces_are_those_at_once(tmp_path, arrivals):
    given = {
        "num_requests": 120,
        "arrivals": arrivals,
        "prompt_tokens": {"dist": "lognormal", "mean": 90, "p95": 200},
        "output_tokens": {"dist": "uniform", "low": 1, "high": 60},
        "priorities": [{"value": 0, "share": 1}, {"value": 1, "share": 2}],
        "prefixes": {"share": 0.5, "count": 3, "tokens": 32},
        "timeout_s": 9,
    }
    stream, whole = made(tmp_path, **given), generate(Workload.model_validate(given), 3, 4096, tmp_path)
    same(stream, whole)
    assert stream.closed_loop == whole.closed_loop


def test_as_long_as_they_arrive(tmp_path):
    """How many they are is not said, but how long they come."""
    given = {
        "duration_s": 50,
        "arrivals": {"process": "poisson", "rate_rps": 3},
        "prompt_tokens": {"dist": "fixed", "value": 9},
        "output_tokens": {"dist": "fixed", "value": 9},
    }
    same(made(tmp_path, **given), generate(Workload.model_validate(given), 3, 4096, tmp_path))
    short = made(tmp_path, **(given | {"duration_s": 5}))
    assert isinstance(short, RequestArrays)


@pytest.mark.parametrize(
    "keys",
    [
        {"replay": {"copies": 2}},
        {"replay": {"repeat": 2}},
        {"replay": {"rate_scale": {"factor": 2}}},
        {"replay": {"thin": {"share": 0.9, "by": "session"}}},
        {"arrivals": {"process": "poisson", "rate_rps": 4}},
        {"arrivals": {"process": "closed-loop", "concurrency": 4}},
    ],
    ids=str,
)
def test_what_needs_all_of_a_trace_is_handed_over_in_pieces(tmp_path, keys):
    path = written(tmp_path, "parquet", table())
    given = {**keys, "replay": {"path": path.name, **keys.get("replay", {})}}
    same(made(tmp_path, **given), generate(Workload.model_validate(given), 3, 4096, tmp_path))


@pytest.mark.parametrize(
    "keys", [{"replay": {"limit": 50}}, {"programs": {"kind": "sessions", "think_time_s": 1}}], ids=str
)
def test_few_requests_and_programs_are_held(tmp_path, keys):
    path = written(tmp_path, "parquet", table())
    given = {**keys, "replay": {"path": path.name, **keys.get("replay", {})}}
    assert isinstance(made(tmp_path, **given), RequestArrays)


def test_a_file_that_is_not_in_order_of_time_is_put_in_order(tmp_path):
    rows = table().to_pandas()
    rows.loc[170, "arrival_s"] = 1.0
    path = written(tmp_path, "parquet", pa.Table.from_pandas(rows, preserve_index=False))
    given = {"replay": {"path": path.name}}
    found = made(tmp_path, **given)
    same(found, generate(Workload.model_validate(given), 3, 4096, tmp_path))
    assert (np.diff(found.whole().arrival_s) >= 0).all()


def test_a_file_that_is_wrong_somewhere_is_refused_before_anything_is_simulated(tmp_path):
    rows = table().to_pandas()
    rows.loc[190, "prompt_tokens"] = -5
    path = written(tmp_path, "csv", pa.Table.from_pandas(rows, preserve_index=False))
    with pytest.raises(ScenarioError, match=r"trace\.csv:192: prompt_tokens"):
        made(tmp_path, replay={"path": path.name})


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "azure2023_conv.csv",
        "burstgpt3_w2.csv",
        "mooncake_conversation.jsonl",
    ],
)
def test_public_traces_in_pieces(workloads, name, monkeypatch):
    monkeypatch.setattr("simslm.workload.readers.table._BLOCK_BYTES", 1 << 17)
    given = {"replay": {"path": name, "limit": 900}}
    same(made(workloads, **given), generate(Workload.model_validate(given), 3, 4096, workloads))


def ran(mapping, folder, monkeypatch):
    """A scenario run as a whole and in pieces: the rows of each but for energies, and the results."""
    rows, results = [], []
    for held in (1 << 20, 50):
        monkeypatch.setattr("simslm.workload.supply.MOST_HELD", held)
        with RunWriter(folder / str(held)) as writer:
            results.append(simulate(load_scenario(mapping), sink=writer, with_intervals=False))
            writer.finish(results[-1])
        rows.append(pq.read_table(folder / str(held) / "requests.parquet").drop(["energy_j"]))
    assert len(results[1].request_columns["status"]) < 100 < len(rows[0])
    assert rows[1].equals(rows[0])
    return rows[0], [result.summary for result in results]


def test_a_run_of_a_replay_in_pieces(tmp_path, small, monkeypatch):
    """Its files are those of the run that holds all of it; the page shows a part, and says so."""
    path = written(tmp_path, "parquet", table())
    mapping = small | {"workload": {"replay": {"path": str(path), "time_scale": 0.05}}}
    _, (whole, pieces) = ran(mapping, tmp_path, monkeypatch)
    for name in ("requests", "ttft_s", "e2e_s", "slo"):
        assert pieces[name] == whole[name]
    monkeypatch.setattr(excerpt, "MOST_REQUESTS", 50)
    monkeypatch.setattr(excerpt, "DRAWN", 10)
    page = write_report([tmp_path / "50"]).read_text(encoding="utf-8")
    assert "Of 200 requests 7 are drawn" in page


def test_a_run_of_classes_in_pieces(tmp_path, small, monkeypatch):
    """Figures by class, SLO and fairness are those of the run that holds all of it."""
    lengths = {name: small["workload"].pop(name) for name in ("prompt_tokens", "output_tokens")}
    arrivals = {"process": "poisson", "rate_rps": 30}
    classes = {
        "chat": {**lengths, "arrivals": arrivals, "num_requests": 90, "slo": {"ttft_s": 0.006}},
        "batch": {**lengths, "arrivals": arrivals, "num_requests": 110, "priority": 2},
    }
    mapping = {name: value for name, value in small.items() if name != "slo"}
    rows, (whole, pieces) = ran(mapping | {"workload": {"classes": classes}}, tmp_path, monkeypatch)
    assert set(rows["class"].to_pylist()) == {"chat", "batch"}
    assert 0 < whole["slo"]["attainment"] < 1
    assert pieces["slo"] == whole["slo"]
    assert pieces["fairness"] == pytest.approx(whole["fairness"])
    for name, figures in whole["classes"].items():
        assert pieces["classes"][name] == figures | {
            "service_tokens_per_s": pytest.approx(figures["service_tokens_per_s"])
        }
