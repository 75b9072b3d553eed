"""Dialects of JSON-lines traces, files without times, and what is refused by name rather than misread."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simslm.api import load_scenario, simulate
from simslm.cli.workload import recorded
from simslm.errors import ScenarioError
from simslm.scenario.workload import Workload
from simslm.workload import generate
from simslm.workload.readers import FORMATS, detect, read_pieces, read_trace


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def turn(length, **more):
    return {"input_length": length, "output_length": 5, **more}


@pytest.fixture
def small_pieces(monkeypatch):
    """Files are read a few rows at a time."""
    monkeypatch.setattr("simslm.workload.readers.table._BLOCK_BYTES", 256)


OWN = st.fixed_dictionaries(
    {"prompt_tokens": st.integers(1, 99), "output_tokens": st.integers(1, 9)},
    optional={
        "session_id": st.sampled_from("ab"),
        "priority": st.integers(-3, 3),
        "patience_s": st.floats(0, 9),
    },
)


@pytest.mark.slow
@given(
    rows=st.lists(OWN, min_size=1, max_size=40),
    seed=st.integers(0, 99),
    block=st.sampled_from([200, 1 << 20]),
)
def test_what_a_file_means_does_not_depend_on_the_order_of_its_rows(rows, seed, block, tmp_path_factory):
    folder = tmp_path_factory.mktemp("order")
    rows = [{"arrival_s": i, **row} for i, row in enumerate(rows)]
    order = np.random.default_rng(seed).permutation(len(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("simslm.workload.readers.table._BLOCK_BYTES", block)
        first, _ = read_trace(written(folder / "first.jsonl", rows))
        other, _ = read_trace(written(folder / "other.jsonl", [rows[i] for i in order]))
    blanks = {"priority": 0, "patience_s": np.inf}
    for name, blank in blanks.items():
        stated = [row.get(name, blank) for row in rows]
        column = getattr(first, name)
        assert (column is None) == all(name not in row for row in rows)
        if column is not None:
            assert column.tolist() == stated
            assert getattr(other, name).tolist() == [stated[i] for i in order]
    sessions = [row.get("session_id") for row in rows]
    if first.session_id is not None:
        for found, mine in ((first, range(len(rows))), (other, order)):
            known = found.session_id
            same = np.equal.outer(known, known) & (known >= 0)[:, None]
            wanted = [[sessions[i] == sessions[j] and sessions[i] is not None for j in mine] for i in mine]
            assert same.tolist() == wanted


def test_a_conversation_whose_first_row_has_no_session_goes_on(cases):
    rows = simulate(load_scenario(cases / "traffic" / "late.yaml"), with_intervals=False).requests
    assert rows["arrival_s"].iloc[2] == pytest.approx(rows["finish_s"].iloc[1] + 1)


def test_sessions_of_mooncake_are_routed_by(cases):
    rows = simulate(load_scenario(cases / "traffic" / "moon-session.yaml"), with_intervals=False).requests
    assert rows["replica"].nunique() == 1


@pytest.mark.parametrize("labels", [("a", "b"), (7, 8)])
def test_labels_may_be_texts_or_numbers_but_not_both(labels, tmp_path):
    rows = [turn(9, timestamp=i, session_id=labels[i % 2]) for i in range(4)]
    assert read_trace(written(tmp_path / "one.jsonl", rows))[0].session_id.tolist() == [0, 1, 0, 1]
    rows.append(turn(9, timestamp=9, session_id="x" if labels[0] == 7 else 3))
    with pytest.raises(ScenarioError, match="session_id"):
        read_trace(written(tmp_path / "both.jsonl", rows))


def test_a_delay_counts_from_the_answer_before_it(cases, tmp_path):
    path = cases / "traffic" / "moon-delay.jsonl"
    found = recorded(path, "auto")
    assert any("1 requests state a delay" in note for note in found.notes)
    scenario = {"replay": {"path": str(path)}}
    with pytest.raises(ScenarioError, match=r"state a delay after the answer before them.*programs"):
        generate(Workload.model_validate(scenario), 0, 4096, tmp_path)
    plan = tmp_path / "delay.yaml"
    plan.write_text(
        "name: delay\nmodel: llama-3.2-1b\ndevice: l4\ncost: {roofline: {}}\nworkload:\n  replay: {path: "
        f"{path}}}\n  programs: {{kind: sessions, think_time_s: {{dist: recorded}}}}\n",
        encoding="utf-8",
    )
    rows = simulate(load_scenario(plan), with_intervals=False).requests
    assert rows["arrival_s"].iloc[1] == pytest.approx(rows["finish_s"].iloc[0] + 1.5)


def test_delays_are_known_across_pieces_of_a_file(small_pieces, tmp_path):
    rows = [turn(9, session_id="a", timestamp=5)]
    rows += [turn(9, session_id="a", delay=10 * i) for i in range(30)]
    found, _ = read_trace(written(tmp_path / "long.jsonl", rows))
    assert found.chained == 30
    assert found.ticks.tolist() == (5 + np.cumsum([0, *range(0, 300, 10)])).tolist()
    assert found.pause_s[1:].tolist() == [i / 100 for i in range(30)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [turn(9, timestamp=0), turn(9, delay=5, session_id="a")],
            r":2: delay: .*none of its session_id goes before",
        ),
        ([turn(9, timestamp=0, session_id="a"), turn(9, session_id="a")], r":2: timestamp: .*found nothing"),
        (
            [turn(9, timestamp=0, session_id="a"), turn(9, delay=-5, session_id="a")],
            r":2: delay: expected a time",
        ),
        ([turn(9), turn(9, timestamp=4)], r":1: timestamp: .*found nothing"),
        (
            [turn(9, timestamp=0), turn(9, timestamp=0.25)],
            r":2: timestamp: no whole number.*replay\.time_unit: s",
        ),
        ([turn(9, timestamp=1790000000000000)], r":1: timestamp: more than 2\*\*32 seconds.*time_unit: us"),
    ],
)
def test_a_row_whose_time_is_not_known_is_named(rows, message, tmp_path):
    with pytest.raises(ScenarioError, match=message):
        read_trace(written(tmp_path / "trace.jsonl", rows))


def test_times_in_later_pieces_only_are_refused(small_pieces, tmp_path):
    rows = [turn(9) for _ in range(30)] + [turn(9, timestamp=4)]
    with pytest.raises(ScenarioError, match=r"timestamp: rows before have none|timestamp: .*found nothing"):
        read_trace(written(tmp_path / "trace.jsonl", rows))


def test_qwen_bailian_has_seconds_short_blocks_and_chats(cases):
    path = cases / "traffic" / "bailian.jsonl"
    found, name = read_trace(path)
    assert name == "qwen-bailian"
    assert found.arrival_s().tolist() == [0.0, 1.25, 61.114]
    assert found.unit_tokens == 16
    assert found.session_id[0] == found.session_id[2] != found.session_id[1]
    rows = simulate(load_scenario(cases / "traffic" / "bailian.yaml"), with_intervals=False).requests
    assert rows["cached_prompt_tokens"].tolist() == [0, 0, 496]


def test_chats_whose_parent_is_not_in_the_file_are_one_conversation(tmp_path):
    chats = [(5, 1), (2, -1), (6, 1), (7, 5), (8, 2)]
    rows = [
        turn(9, chat_id=chat, parent_chat_id=parent, timestamp=float(i))
        for i, (chat, parent) in enumerate(chats)
    ]
    found = read_trace(written(tmp_path / "chats.jsonl", rows))[0].session_id
    assert found[0] == found[2] == found[3] != found[1] == found[4]


def test_units_may_be_stated(tmp_path):
    rows = [turn(40, timestamp=0.0, hash_ids=[1, 2, 3]), turn(40, timestamp=1.5, hash_ids=[1, 2, 4])]
    path = written(tmp_path / "seconds.jsonl", rows)
    found, _ = read_trace(path, ticks_per_s=1, unit_tokens=16)
    assert (found.arrival_s().tolist(), found.unit_tokens) == ([0.0, 1.5], 16)
    replay = {"path": path.name, "time_unit": "s", "hash_tokens": 16}
    made = generate(Workload.model_validate({"replay": replay}), 0, 4096, tmp_path)
    assert made.arrival_s.tolist() == [0.0, 1.5]
    assert [len(set(made.units[0]) & set(made.units[1])), made.unit_tokens] == [2, 16]
    own = tmp_path / "own.csv"
    own.write_text("arrival_s,prompt_tokens,output_tokens\n0,1,1\n", encoding="utf-8")
    with pytest.raises(ScenarioError, match=r"csv, whose units are fixed; leave replay\.time_unit out"):
        read_trace(own, ticks_per_s=1)


@pytest.mark.parametrize("name", ["servegen-offline.jsonl", "own.csv", "own.jsonl"])
def test_lengths_without_times_take_arrivals_beside_them(name, cases, tmp_path):
    path = cases / "traffic" / name
    if not path.exists():
        path = tmp_path / name
        row = {"prompt_tokens": 7, "output_tokens": 3}
        csv = "prompt_tokens,output_tokens\n7,3\n7,3\n"
        path.write_text(csv if name.endswith("csv") else f"{json.dumps(row)}\n" * 2, encoding="utf-8")
    assert not read_trace(path)[0].timed
    assert "says nothing of when requests arrive" in " ".join(recorded(path, "auto").notes)
    replay = {"replay": {"path": str(path)}}
    with pytest.raises(
        ScenarioError, match=r"says nothing of when requests arrive \(it has no (timestamp|arrival_s)\)"
    ):
        generate(Workload.model_validate(replay), 0, 4096, tmp_path)
    arrivals = {"arrivals": {"process": "deterministic", "rate_rps": 2}}
    assert generate(Workload.model_validate(replay | arrivals), 0, 4096, tmp_path).arrival_s.tolist() == [
        0,
        0.5,
    ]


@pytest.mark.parametrize("column", ["arival_s", "arrivals_s"])
def test_a_misspelt_column_of_times_is_not_taken_for_none(column, tmp_path):
    path = tmp_path / "own.csv"
    path.write_text(f"{column},prompt_tokens,output_tokens\n0,7,3\n", encoding="utf-8")
    with pytest.raises(ScenarioError, match="did you mean 'arrival_s'"):
        detect(path)


@pytest.mark.parametrize("time", ["1790000000000", "1790000000000000", "-4294967297"])
def test_a_time_in_another_unit_is_refused(time, tmp_path):
    path = tmp_path / "own.csv"
    path.write_text(f"arrival_s,prompt_tokens,output_tokens\n{time},20,25\n", encoding="utf-8")
    with pytest.raises(ScenarioError, match=r"own\.csv:2: arrival_s: .*at most 2\*\*32 either way"):
        read_trace(path)


def test_rare_requests_are_asked_about(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n0,1,1\n100000,1,1\n", encoding="utf-8")
    assert any("in the unit that" in note for note in recorded(path, "auto").notes)


def test_nanoseconds_of_an_epoch_are_exact(tmp_path):
    times = [1790000000000000001, 1790000000000000002]
    rows = [{"arrival_time_ns": time, "input_toks": 1, "output_toks": 1} for time in times]
    found, _ = read_trace(written(tmp_path / "ns.jsonl", rows))
    assert (found.ticks[1] - found.ticks[0], found.arrival_s()[1]) == (1, 1e-9)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sharegpt.json", '[\n {"id": "u1", "conversations": [{"from": "human", "value": "hi"}]}\n]'),
        ("chat.jsonl", '{"messages": [{"role": "user", "content": "hi"}]}\n'),
        ("list.json", '[{"prompt_tokens": 1, "output_tokens": 2}]'),
    ],
)
def test_texts_and_lists_are_refused_as_what_they_are(name, text, tmp_path):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    wanted = "is one JSON list" if name == "list.json" else "holds texts .*and no numbers of tokens"
    with pytest.raises(ScenarioError, match=wanted):
        detect(path)


@pytest.mark.parametrize("format_", ["auto", *FORMATS])
def test_a_pipe_is_refused_as_one(format_, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ScenarioError, match=r"is a pipe or a device.*write it to a file"):
        list(read_pieces(tmp_path / "pipe", format_))


@pytest.mark.parametrize("column", ["prompt_tokens", "arrival_s", "priority"])
def test_a_column_twice_is_refused(column, tmp_path):
    path = tmp_path / "twice.csv"
    path.write_text(
        f"arrival_s,prompt_tokens,output_tokens,priority,{column}\n0,10,5,1,9\n", encoding="utf-8"
    )
    with pytest.raises(ScenarioError, match=rf"twice\.csv:1: has the column {column} twice"):
        read_trace(path)
    path.write_text("arrival_s,prompt_tokens,output_tokens,note,note\n0,10,5,1,9\n", encoding="utf-8")
    assert len(read_trace(path)[0]) == 1
