"""Importing a CSV as a trace."""

from __future__ import annotations

import pytest

from simslm.errors import TraceError
from simslm.traces.importers.iterations_csv import import_csv
from simslm.traces.files import read_trace

NAMES = {"model": "opt-125m", "dtype": "fp32", "device": "cpu", "engine": "mine 2"}


def test_the_least_a_csv_can_say(tmp_path):
    csv = tmp_path / "steps.csv"
    csv.write_text(
        "decode_seqs,decode_ctx_tokens,prefill_tokens,latency_s\n1,16,0,0.02\n1,16,0,0.03\n0,0,64,0.1\n"
    )
    import_csv(csv, tmp_path / "trace", **NAMES, date="2025-01-01", more={"driver": "570"})
    trace = read_trace(tmp_path / "trace")
    assert trace.source == "imported"
    assert trace.provenance["imported_from"] == "steps.csv"
    assert trace.provenance["driver"] == "570"
    rows = trace.iterations.to_pylist()
    assert [row["repeat"] for row in rows] == [0, 1, 0]
    assert [row["prefill_seqs"] for row in rows] == [0, 0, 1]
    assert {row["replicas"] for row in rows} == {1}
    assert {row["host_s"] for row in rows} == {row["energy_j"] for row in rows} == {None}


def test_every_column_is_taken_as_it_is(tmp_path, trace):
    csv = tmp_path / "steps.csv"
    trace.iterations.to_pandas().to_csv(csv, index=False)
    again = import_csv(csv, tmp_path / "again", **NAMES)
    assert again.iterations.equals(trace.iterations)


def test_text_columns(tmp_path):
    csv = tmp_path / "steps.csv"
    csv.write_text("prefill_tokens,latency_s,sharing,replicas\n16,0.5,mps,2\n16,0.5,,1\n")
    rows = import_csv(csv, tmp_path / "t", **NAMES).iterations.to_pylist()
    assert [row["sharing"] for row in rows] == ["mps", None]
    assert [row["repeat"] for row in rows] == [0, 0]


def test_numbers_may_be_written_in_any_usual_way(tmp_path):
    csv = tmp_path / "steps.csv"
    csv.write_text("decode_seqs,decode_ctx_tokens,latency_s\n1.0, 1.6e1 ,2e-2\n")
    (row,) = import_csv(csv, tmp_path / "t", **NAMES).iterations.to_pylist()
    assert (row["decode_seqs"], row["decode_ctx_tokens"], row["latency_s"]) == (1, 16, 0.02)


HEADER = "decode_seqs,decode_ctx_tokens,latency_s\n"


@pytest.mark.parametrize(
    ("text", "line", "fragment"),
    [
        (HEADER + "1,16,0.1\n1,16,fast\n1,16,slow\n", 3, "'latency_s' is not double"),
        (HEADER + "1,16,0.1\n\n1,16,-1\n", 4, "'latency_s' holds -1.0"),
        (HEADER + "1,16,0.1\n1,16,\n", 3, "'latency_s' is empty"),
        (HEADER + "1,16,0.1\n1.5,16,0.1\n", 3, "'decode_seqs' is not int64"),
        (HEADER + "1,16,0.1\n0,0,0.1\n", 3, "runs nothing"),
        (HEADER + "1,16,0.1\n1,16\n", 3, "cannot be read as CSV"),
        ("latency_s," + HEADER, 1, "two columns of one name"),
    ],
)
def test_what_is_wrong_is_named_by_its_line(tmp_path, text, line, fragment):
    csv = tmp_path / "steps.csv"
    csv.write_text(text)
    with pytest.raises(TraceError) as caught:
        import_csv(csv, tmp_path / "trace", **NAMES)
    assert caught.value.where == f"{csv}:{line}"
    assert fragment in caught.value.message
    assert "in row" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("decode_seqs,latency_ms\n1,2\n", "unknown column 'latency_ms' (did you mean 'latency_s'?)"),
        ("decode_seqs,decode_ctx_tokens\n1,2\n", "lacks column latency_s"),
        ("latency_s\n1\n", "lacks both decode_seqs and prefill_tokens"),
        ("decode_seqs,latency_s\n1,2\n1\n", "cannot be read as CSV"),
        ("decode_seqs,latency_s\n1,-2\n", "'latency_s' holds -2"),
        ("decode_seqs,latency_s\n1,fast\n", "'latency_s' is not double"),
        ("decode_seqs,latency_s\n", "holds no rows"),
        ("", "cannot be read as CSV"),
    ],
)
def test_wrong_files(tmp_path, text, fragment):
    csv = tmp_path / "steps.csv"
    csv.write_text(text)
    with pytest.raises(TraceError) as caught:
        import_csv(csv, tmp_path / "trace", **NAMES)
    assert fragment in str(caught.value)
    assert not (tmp_path / "trace").exists()


def test_a_missing_file(tmp_path):
    with pytest.raises(TraceError, match="no such file"):
        import_csv(tmp_path / "steps.csv", tmp_path / "trace", **NAMES)
