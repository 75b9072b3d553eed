"""Readers against the public slices and their oracle, and against damaged copies."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from simslm.errors import ScenarioError
from simslm.workload.readers import FORMATS, detect, read_pieces, read_trace

SLICES = {
    "azure2023_conv.csv": "azure-2023",
    "azure2023_code.csv": "azure-2023",
    "azure2024_code_rows5.csv": "azure-2024",
    "azure2024_conv_rows5.csv": "azure-2024",
    "burstgpt1.csv": "burstgpt",
    "burstgpt3_w1.csv": "burstgpt",
    "burstgpt3_w2.csv": "burstgpt",
    "mooncake_conversation.jsonl": "mooncake",
    "mooncake_synthetic.jsonl": "mooncake",
    "mooncake_arxiv_toollike.jsonl": "mooncake",
    "azure2025_multimodal_rows5.csv": "azure-2025",
    "ragpulse_trace.jsonl": "ragpulse",
    "splitwise_sim_test_trace.csv": "splitwise",
    "vidur_arxiv_summarization.csv": "vidur-lengths",
    "vidur_splitwise_conv.csv": "vidur",
    "vidur_splitwise_code.csv": "vidur",
    "llmservingsim_sharegpt.jsonl": "llmservingsim",
    "llmservingsim_me2_01_mixed.jsonl": "llmservingsim",
    "llmservingsim_example_trace.jsonl": "llmservingsim",
}


def seconds_on_the_file_s_clock(stamp):
    """The oracle's first and last time stamps, by way of Python's own date arithmetic."""
    from datetime import datetime

    text = str(stamp)
    if "-" not in text:
        return float(text)
    whole, _, rest = text.partition(".")
    digits = rest.partition("+")[0].rstrip("Z")
    return datetime.fromisoformat(whole).timestamp() + float(f"0.{digits}")


def test_every_slice_is_in_the_table(workloads):
    assert set(SLICES) == set(json.loads((workloads / "expected.json").read_text()))


@pytest.mark.parametrize("name", SLICES)
def test_the_format_of_a_public_slice_is_found(name, workloads):
    assert detect(workloads / name) == SLICES[name]


@pytest.mark.parametrize("name", SLICES)
def test_a_public_slice_is_read_to_its_oracle(name, workloads):
    oracle = json.loads((workloads / "expected.json").read_text())[name]
    recording, format_ = read_trace(workloads / name)
    assert format_ == SLICES[name]
    dropped = sum(recording.dropped.values())
    assert dropped == oracle["zero_output"] == oracle["zero_prompt"]
    assert len(recording) + dropped == oracle["rows"]
    assert recording.prompt_tokens.sum() == oracle["sum_prompt_tokens"]
    assert recording.output_tokens.sum() == oracle["sum_output_tokens"]
    assert recording.timed == (oracle["first_timestamp"] is not None)
    if recording.timed:
        span = seconds_on_the_file_s_clock(oracle["last_timestamp"])
        span -= seconds_on_the_file_s_clock(oracle["first_timestamp"])
        span += 7 * 86400 if format_ == "ragpulse" else 0
        scale = {"mooncake": 1e3, "llmservingsim": 1e9}.get(format_, 1)
        assert recording.arrival_s()[-1] == pytest.approx(span / scale, abs=2e-6)
        assert recording.arrival_s()[0] == 0


@pytest.mark.parametrize("name", SLICES)
def test_sessions_and_hashes_are_those_of_the_oracle(name, workloads):
    oracle = json.loads((workloads / "expected.json").read_text())[name]
    recording, _ = read_trace(workloads / name)
    if "distinct_sessions" in oracle:
        assert recording.session_id.max() + 1 == oracle["distinct_sessions"]
        assert (recording.session_id < 0).sum() == oracle["blank_sessions"]
    else:
        assert recording.session_id is None
    if "total_hash_ids" in oracle:
        assert sum(map(len, recording.units)) == oracle["total_hash_ids"]
        distinct = len({unit for chain in recording.units for unit in chain})
        assert distinct >= oracle["distinct_hash_ids"]
    else:
        assert recording.units is None


def test_images_are_counted(workloads):
    recording, _ = read_trace(workloads / "azure2025_multimodal_rows5.csv")
    assert recording.images.tolist() == [
        int(line.split(",")[1])
        for line in (workloads / "azure2025_multimodal_rows5.csv").read_text().splitlines()[1:]
    ]


def test_a_clock_that_restarts_begins_the_next_week(workloads):
    """The sessions' names hold the time that they were opened at, in milliseconds of Unix time."""
    recording, _ = read_trace(workloads / "ragpulse_trace.jsonl")
    rows = [
        json.loads(line) for line in (workloads / "ragpulse_trace.jsonl").read_text().splitlines() if line
    ]
    named = [(i, row["session_id"].partition("-")[0]) for i, row in enumerate(rows)]
    opened = [(i, int(text) / 1000) for i, text in named if len(text) == 13 and text.isdigit()]
    late = {
        week: [recording.ticks[i] - at for i, at in opened if (i >= 1300) == week] for week in (False, True)
    }
    assert min(map(len, late.values())) > 1200
    assert np.median(late[True]) == pytest.approx(np.median(late[False]), abs=60)
    assert (np.diff(recording.ticks) >= 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SLICES if "rows5" not in name])
def test_pieces_are_the_whole(name, workloads, monkeypatch):
    monkeypatch.setattr("simslm.workload.readers.table._BLOCK_BYTES", 1 << 15)
    whole, format_ = read_trace(workloads / name)
    pieces = list(read_pieces(workloads / name))
    assert len(pieces) > 1 or (workloads / name).stat().st_size < 1 << 16
    for column in ("ticks", "prompt_tokens", "output_tokens"):
        joined = np.concatenate([getattr(piece, column) for piece in pieces])
        assert np.array_equal(joined, getattr(whole, column))
    monkeypatch.undo()
    once, _ = read_trace(workloads / name, format_)
    assert np.array_equal(once.ticks, whole.ticks)
    assert once.units == whole.units
    assert once.session_id is None or np.array_equal(once.session_id, whole.session_id)


@pytest.mark.parametrize("part", ["conv", "code"])
def test_azure_and_vidur_tell_the_same_requests(part, workloads):
    azure = read_trace(workloads / f"azure2023_{part}.csv")[0]
    vidur = read_trace(workloads / f"vidur_splitwise_{part}.csv")[0]
    assert np.array_equal(azure.prompt_tokens, vidur.prompt_tokens)
    assert np.array_equal(azure.output_tokens, vidur.output_tokens)
    assert azure.arrival_s() == pytest.approx(vidur.arrival_s(), abs=1e-9)


HEADERS = {
    "azure-2023": "TIMESTAMP,ContextTokens,GeneratedTokens",
    "burstgpt": "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type",
    "vidur": "arrived_at,num_prefill_tokens,num_decode_tokens",
    "csv": "arrival_s,prompt_tokens,output_tokens",
}


def read_text(format_, text, tmp_path, name="trace"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_trace(path, format_)[0]


def test_azure_times_are_exact_to_the_last_digit(tmp_path):
    rows = [
        "2023-11-16 23:59:59.9999999,1,1",
        "2023-11-17 00:00:00,2,2",
        "2023-11-17 00:00:00.0000001,3,3",
        "2023-11-17T00:00:00.123456789,4,4",
    ]
    text = "\r\n".join([HEADERS["azure-2023"], *rows])
    recording = read_text("azure-2023", text, tmp_path)
    assert np.diff(recording.ticks).tolist() == [100, 100, 123456689]
    assert recording.arrival_s().tolist() == [0.0, 1e-7, 2e-7, 0.123456889]


@pytest.mark.parametrize("zone", ["+00:00", "Z", "+0000"])
def test_azure_times_may_name_a_zone(zone, tmp_path):
    text = f"{HEADERS['azure-2023']}\n2024-05-10 00:00:00{zone},5,6\n2024-05-10 00:00:00.5{zone},7,8\n"
    assert read_text("azure-2024", text, tmp_path).arrival_s().tolist() == [0.0, 0.5]


def test_azure_zones_may_differ(tmp_path):
    text = f"{HEADERS['azure-2023']}\n2024-05-10 02:00:00+02:00,5,6\n2024-05-10 00:00:01Z,7,8\n"
    assert read_text("azure-2024", text, tmp_path).arrival_s().tolist() == [0.0, 1.0]


def test_azure_times_with_and_without_a_zone_are_refused(tmp_path):
    text = f"{HEADERS['azure-2023']}\n2024-05-10 00:00:00Z,5,6\n2024-05-10 00:00:01,7,8\n"
    with pytest.raises(ScenarioError, match="has a time zone in some rows and none in others"):
        read_text("azure-2024", text, tmp_path)


def test_rows_that_are_no_requests_are_counted(tmp_path):
    rows = ["5,,,ChatGPT,10,0,10,x", "6,,,ChatGPT,0,0,0,x", "7,,,ChatGPT,0,4,4,x", "8.5,,,ChatGPT,9,4,13,x"]
    recording = read_text("burstgpt", "\n".join([HEADERS["burstgpt"], *rows, ""]), tmp_path)
    assert recording.dropped == {"failed (no response)": 2, "no prompt tokens": 1}
    assert recording.ticks.tolist() == [8.5]


def test_json_lines_may_hold_more_and_stand_in_any_order(tmp_path):
    text = '\n{"output_length": 2, "hash_ids": [9], "timestamp": 1500, "input_length": 7}\n\n'
    text += '{"timestamp": 500, "input_length": 8, "output_length": 3, "extra": {"a": []}}'
    recording = read_text("mooncake", text, tmp_path)
    assert recording.arrival_s().tolist() == [1.0, 0.0]
    assert recording.prompt_tokens.tolist() == [7, 8]
    assert recording.units == [(0,), ()]


@pytest.mark.parametrize(
    ("format_", "row", "message"),
    [
        ("azure-2023", "2023-11-16 18:15:46.68,374", "expected 3 columns, found 2"),
        ("azure-2023", "2023-11-16 18:15:46.68,374,4,5", "expected 3 columns, found 4"),
        ("azure-2023", "2023-11-16 18:15:46.68,37x,4", "ContextTokens: expected a whole number.*found '37x'"),
        ("azure-2023", "2023-11-16 18:15:46.68,,4", "ContextTokens: expected a whole number.*found ''"),
        ("azure-2023", "2023-11-16 18:15:46.68,-3,4", "ContextTokens: expected a whole number.*found '-3'"),
        ("azure-2023", "2023-11-16 18:15:46.68,99999999999999999999,4", "ContextTokens: expected"),
        ("azure-2023", "2023-11-16 18:15:46.68,9007199254740993,4", "ContextTokens: expected"),
        ("azure-2023", "2023-13-16 18:15:46.68,3,4", "TIMESTAMP: expected a date and time"),
        ("azure-2023", "yesterday,3,4", "TIMESTAMP: expected a date and time.*found 'yesterday'"),
        ("azure-2023", "2023-11-16 18:15:46.68,3\x00,4", "ContextTokens: expected"),
        ("csv", "nan,3,4", "arrival_s: expected a number of seconds.*found 'nan'"),
        ("csv", "inf,3,4", "arrival_s: expected a number of seconds.*found 'inf'"),
        ("csv", "1.5,0,4", "prompt_tokens: expected a whole number of tokens, 1 or more, found '0'"),
        ("csv", "1.5,3.5,4", "prompt_tokens: expected a whole number of tokens, 1 or more, found '3.5'"),
        ("csv", "1e308,3,4", "arrival_s: expected a number of seconds, at most 2.*found '1e308'"),
        ("csv", "-1e308,3,4", "arrival_s: expected a number of seconds, at most 2.*found '-1e308'"),
        ("vidur", "1e999,3,4", "arrived_at: expected a number of seconds"),
        ("burstgpt", "5,,,ChatGPT,a,1,1,x", "Request tokens: expected a whole number"),
    ],
)
def test_a_malformed_row_is_named_by_file_and_line(format_, row, message, tmp_path):
    good = {"azure-2023": "2023-11-16 18:15:45,3,4", "burstgpt": "4,,,ChatGPT,1,1,2,x"}.get(format_, "1,3,4")
    text = "\n".join([HEADERS[format_], good, row, good])
    with pytest.raises(ScenarioError, match=message) as caught:
        read_text(format_, text, tmp_path)
    assert caught.value.where == f"{tmp_path / 'trace'}:3"
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


GOOD_LINE = '{"timestamp": 1, "input_length": 2, "output_length": 3}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"timestamp": 1, "input_length": 2', "not valid JSON"),
        ("[1, 2]", "expected one JSON object per line"),
        ('{"timestamp": 1, "input_length": 2}', "output_length: expected a whole number.*found nothing"),
        ('{"timestamp": 1, "input_length": "2", "output_length": 3}', "input_length: expected"),
        (
            '{"timestamp": 1.5, "input_length": 2, "output_length": 3}',
            "timestamp: no whole number of milliseconds",
        ),
        ('{"timestamp": 1, "input_length": -2, "output_length": 3}', "input_length: expected"),
        ('{"timestamp": 1, "input_length": true, "output_length": 3}', "input_length: expected"),
        ('{"timestamp": 1, "input_length": 1e400, "output_length": 3}', "input_length: expected"),
    ],
)
def test_a_malformed_line_is_named_by_file_and_line(line, message, tmp_path):
    with pytest.raises(ScenarioError, match=message) as caught:
        read_text("mooncake", f"{GOOD_LINE}\n{line}\n{GOOD_LINE}\n", tmp_path)
    assert caught.value.where == f"{tmp_path / 'trace'}:2"


@pytest.mark.parametrize("format_", ["auto", *FORMATS])
def test_an_empty_file_is_one_clear_error(format_, tmp_path):
    with pytest.raises(ScenarioError, match="the file is empty"):
        read_text(format_, "", tmp_path)


@pytest.mark.parametrize("format_", ["auto", *FORMATS])
def test_a_missing_file_or_a_folder_is_one_clear_error(format_, tmp_path):
    with pytest.raises(ScenarioError, match="no such file"):
        read_trace(tmp_path / "nothing", format_)
    with pytest.raises(ScenarioError, match="is a folder"):
        read_trace(tmp_path, format_)


@pytest.mark.parametrize("format_", HEADERS)
def test_another_header_says_which_columns_are_missing(format_, tmp_path):
    with pytest.raises(ScenarioError, match="the header has no column") as caught:
        read_text(format_, "a,b\n1,2\n", tmp_path)
    assert caught.value.where.endswith("trace:1")


def test_lengths_without_arrivals_point_to_arrivals_of_one_s_own(workloads):
    with pytest.raises(ScenarioError, match=r"with arrivals: {process: \.\.\.} beside replay"):
        read_trace(workloads / "vidur_arxiv_summarization.csv", "vidur")


@pytest.mark.parametrize("name", ["azure2025_multimodal_rows5.csv", "mooncake_synthetic.jsonl"])
def test_a_gzipped_file_is_read_like_its_content(name, workloads, tmp_path):
    path = tmp_path / f"{name}.gz"
    path.write_bytes(gzip.compress((workloads / name).read_bytes()))
    whole, format_ = read_trace(workloads / name)
    found, same = read_trace(path)
    assert same == format_ == detect(path)
    assert np.array_equal(found.ticks, whole.ticks)
    for content in (b"not gzip at all", path.read_bytes()[:-12]):
        path.write_bytes(content)
        with pytest.raises(ScenarioError, match="cannot be decompressed") as caught:
            read_trace(path, format_)
        assert caught.value.where == str(path)


def test_a_byte_order_mark_and_lone_returns_are_read_over(workloads, tmp_path):
    text = "\ufeff" + (workloads / "azure2024_conv_rows5.csv").read_text().replace("\n", "\r")
    assert len(read_text("auto", text, tmp_path)) == 5


def test_a_file_of_bytes_is_of_no_known_format(tmp_path):
    with pytest.raises(ScenarioError, match="of no known format: it has no text;"):
        read_text("auto", bytes(range(256)), tmp_path)


def test_a_near_miss_names_the_column(tmp_path):
    with pytest.raises(ScenarioError, match="did you mean 'prompt_tokens'") as caught:
        read_text("auto", "arrival_s,prompts_tokens,output_tokens\n1,2,3\n", tmp_path)
    assert caught.value.where == f"{tmp_path / 'trace'}:1"


PARQUET = {"arrival_s": [1.0, 2.5], "prompt_tokens": [3, 4], "output_tokens": [5, 6]}


def test_parquet_is_read_with_any_integers_and_blanks(tmp_path):
    more = {"session_id": [7, None], "patience_s": [None, 3.0]}
    table = pa.table(PARQUET | more).set_column(1, "prompt_tokens", pa.array([3, 4], pa.uint16()))
    parquet.write_table(table, tmp_path / "trace")
    recording, name = read_trace(tmp_path / "trace")
    assert name == "parquet"
    assert recording.prompt_tokens.tolist() == [3, 4]
    assert recording.session_id.tolist() == [0, -1]
    assert recording.patience_s.tolist() == [np.inf, 3.0]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        (
            "prompt_tokens",
            [3, 0],
            r"row 2: prompt_tokens: expected a whole number of tokens, 1 or more, found 0",
        ),
        ("prompt_tokens", [None, 4], r"row 1: prompt_tokens: expected .*, found None"),
        ("prompt_tokens", [3.0, 4.0], r"prompt_tokens: expected .*, found a column of double"),
        ("arrival_s", [1.0, float("nan")], r"row 2: arrival_s: expected a number of seconds"),
        ("arrival_s", ["1", "2"], r"arrival_s: expected .*, found a column of string"),
        ("output_tokens", None, r"has no column output_tokens; it has arrival_s, prompt_tokens"),
    ],
)
def test_a_wrong_value_in_parquet_is_named_by_its_row(column, values, message, tmp_path):
    columns = {name: each for name, each in (PARQUET | {column: values}).items() if each is not None}
    parquet.write_table(pa.table(columns), tmp_path / "trace.parquet")
    with pytest.raises(ScenarioError, match=message):
        read_trace(tmp_path / "trace.parquet")


def test_damaged_or_empty_parquet_is_one_clear_error(tmp_path):
    path = tmp_path / "trace.parquet"
    parquet.write_table(pa.table(PARQUET), path)
    whole = path.read_bytes()
    for kept in (4, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(ScenarioError, match="cannot be read as Parquet"):
            read_trace(path)
    parquet.write_table(pa.table(PARQUET).slice(0, 0), path)
    with pytest.raises(ScenarioError, match="the file has no rows"):
        read_trace(path)
