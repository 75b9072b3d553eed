"""A trace is written whole or not at all, and read whole or refused with a message that helps."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simslm.errors import TraceError
from simslm.traces.files import list_traces, read_trace, write_trace
from simslm.traces.schema import REQUIRED_PROVENANCE, TABLES


def test_what_was_written_is_read(trace):
    again = read_trace(trace.path)
    assert again.tables.keys() == {"iterations", "power"}
    assert again.provenance == trace.provenance
    for name, table in again.tables.items():
        assert table.equals(trace.tables[name])
        assert table.schema.equals(TABLES[name])


def test_every_field_states_unit_and_meaning_in_the_file(trace):
    schema = pq.read_schema(trace.path / "iterations.parquet")
    assert schema.metadata[b"simslm.schema"] == b"iterations"
    assert schema.metadata[b"simslm.schema_version"] == b"1"
    assert json.loads(schema.metadata[b"simslm.provenance"]) == trace.provenance
    for field in schema:
        assert field.metadata[b"doc"], field.name
        assert b"unit" in field.metadata, field.name


@pytest.mark.parametrize("kind", ["pandas", "arrow", "chunks"])
def test_frames_and_tables_give_the_same_trace(tmp_path, trace, columns, provenance, kind):
    frame = pd.DataFrame(columns).assign(energy_j=np.nan, sharing=None)
    table = pa.table(columns)
    given = {
        "pandas": frame[frame.columns[::-1]],
        "arrow": table,
        "chunks": pa.concat_tables([table[:5], table[5:]]),
    }[kind]
    power = pd.DataFrame({"state": ["idle"], "power_w": [20], "repeat": [0]})
    written = write_trace(tmp_path / "other", provenance=provenance, iterations=given, power=power)
    assert written.content_hash == trace.content_hash == read_trace(written.path).content_hash


def test_the_hash_is_of_the_content_not_of_the_encoding(trace):
    file = trace.path / "iterations.parquet"
    table = pq.read_table(file)
    before = file.read_bytes()
    pq.write_table(table, file, compression="none", row_group_size=2, use_dictionary=False)
    assert file.read_bytes() != before
    assert read_trace(trace.path).content_hash == trace.content_hash


def test_the_hash_notices_every_change(trace, columns):
    table = trace.iterations
    hashes = {trace.content_hash, replace(trace, provenance=trace.provenance | {"date": "x"}).content_hash}
    hashes.add(replace(trace, power=None).content_hash)
    for name in ("latency_s", "decode_seqs", "energy_j", "sharing"):
        i = table.schema.get_field_index(name)
        values = table.column(name).to_pylist()
        values[0] = {"energy_j": 0.0, "sharing": "mps"}.get(name, (values[0] or 0) + 1)
        changed = table.set_column(i, table.schema.field(i), pa.array(values, table.schema.field(i).type))
        hashes.add(replace(trace, iterations=changed).content_hash)
    assert len(hashes) == 7


@pytest.mark.slow
def test_the_hash_is_the_same_in_every_process(trace):
    """Whatever the hash seed; and pinned, so that manifests name the same trace tomorrow."""
    code = f"from simslm.traces.files import read_trace; print(read_trace({str(trace.path)!r}).content_hash)"
    for seed in ("0", "1"):
        out = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        )
        assert out.stdout.strip() == trace.content_hash
    assert trace.content_hash == PINNED_HASH


def test_a_new_trace_replaces_the_old_one_and_leaves_notes_alone(trace, columns, provenance):
    (trace.path / "notes.md").write_text("quiet machine")
    write_trace(trace.path, provenance=provenance, iterations=columns, heldout=columns)
    assert sorted(file.name for file in trace.path.iterdir()) == [
        "heldout.parquet", "iterations.parquet", "notes.md"
    ]  # fmt: skip
    assert [entry.name for entry in trace.path.parent.iterdir()] == [trace.path.name]
    assert read_trace(trace.path).power is None


PINNED_HASH = "615ef26bd1a794ec577b6f5d53886347f13f680be88a083f42645f8c412f19da"


KILLED = """
import os, signal, sys
from pathlib import Path
import pyarrow.parquet as pq
from simslm.traces import files
calls = {"write": 0, "rename": 0}
def dies(kind, original):
    def call(*args, **kwargs):
        calls[kind] += 1
        if (kind, calls[kind]) == (sys.argv[2], int(sys.argv[3])):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)
    return call
pq.write_table = dies("write", pq.write_table)
Path.rename = dies("rename", Path.rename)
old = files.read_trace(sys.argv[1])
files.write_trace(sys.argv[1], provenance=old.provenance | {"date": "new"}, iterations=old.iterations,
                  power=old.power)
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", [("write", 1), ("write", 2), ("rename", 1), ("rename", 2), ("rename", 3)])
def test_a_kill_leaves_the_old_trace_or_the_new_one(trace, provenance, columns, when):
    (trace.path / "notes.md").write_text("keep")
    command = [sys.executable, "-c", KILLED, str(trace.path), when[0], str(when[1])]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    if when == ("rename", 2):
        _refused(lambda: read_trace(trace.path), "rename it back")
    else:
        date = read_trace(trace.path).provenance["date"]
        assert date == ("new" if when == ("rename", 3) else trace.provenance["date"])
    assert [entry.path for entry in list_traces(trace.path.parent)] in ([trace.path], [])
    write_trace(trace.path, provenance=provenance, iterations=columns)
    assert read_trace(trace.path).power is None
    assert (trace.path / "notes.md").read_text() == "keep"


def test_a_file_in_the_place_of_a_trace_is_left_alone(tmp_path, columns, provenance):
    (tmp_path / "thesis").write_text("precious")
    _refused(lambda: write_trace(tmp_path / "thesis", provenance=provenance, iterations=columns), "is a file")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]
    assert (tmp_path / "thesis").read_text() == "precious"


def test_a_failed_write_leaves_nothing(tmp_path, columns, provenance, monkeypatch):
    monkeypatch.setattr(
        pq, "write_table", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        write_trace(tmp_path / "cpu" / "m", provenance=provenance, iterations=columns)
    assert list((tmp_path / "cpu").iterdir()) == []


def _refused(call, *fragments):
    with pytest.raises(TraceError) as caught:
        call()
    assert caught.value.exit_code == 3
    for fragment in fragments:
        assert fragment in str(caught.value)


def _rewrite(file, metadata=None, **changed):
    """Replace columns or metadata of a written file, past every check of the writer."""
    table = pq.read_table(file)
    for name, values in changed.items():
        table = table.drop_columns([name])
        if values is not None:
            table = table.append_column(name, [values])
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **(metadata or {})})
    pq.write_table(table, file)


DAMAGES = {
    "missing directory": (lambda path: shutil.rmtree(path), ("no such trace directory", "simslm profile")),
    "missing file": (lambda path: (path / "iterations.parquet").unlink(), ("neither is there", "simslm profile")),
    "truncated": (
        lambda path: (path / "iterations.parquet").write_bytes((path / "iterations.parquet").read_bytes()[:-40]),
        ("iterations.parquet", "not a whole Parquet file", "fetch it again"),
    ),
    "torn in the middle": (
        lambda path: _tear(path / "iterations.parquet"),
        ("iterations.parquet", "not a whole Parquet file"),
    ),
    "empty file": (lambda path: (path / "power.parquet").write_bytes(b""), ("power.parquet", "not a whole")),
    "foreign": (
        lambda path: pq.write_table(pa.table({"a": [1]}), path / "iterations.parquet"),
        ("no simslm schema", "simslm traces import"),
    ),
    "other table": (
        lambda path: shutil.copy(path / "power.parquet", path / "iterations.parquet"),
        ("schema 'power'", "'iterations'"),
    ),
    "unknown version": (
        lambda path: _rewrite(path / "iterations.parquet", {b"simslm.schema_version": b"99"}),
        ("version 99", "version 1"),
    ),
    "no provenance": (
        lambda path: _rewrite(path / "iterations.parquet", {b"simslm.provenance": b""}),
        ("provenance is missing",),
    ),
    "poor provenance": (
        lambda path: _rewrite(
            path / "iterations.parquet", {b"simslm.provenance": json.dumps({"source": "measured"}).encode()}
        ),
        ("lacks model, dtype, device, engine",),
    ),
    "unknown source": (
        lambda path: _rewrite(
            path / "iterations.parquet", {b"simslm.provenance": json.dumps({"source": "mesured"}).encode()}
        ),
        ("mesured", "did you mean 'measured'?"),
    ),
    "two measurements": (
        lambda path: _rewrite(
            path / "power.parquet", {b"simslm.provenance": _other_provenance(path)}
        ),
        ("power.parquet", "differs from that of iterations.parquet"),
    ),
    "missing column": (
        lambda path: _rewrite(path / "iterations.parquet", latency_s=None),
        ("iterations.parquet", "lacks column latency_s"),
    ),
    "NaN": (
        lambda path: _rewrite(path / "iterations.parquet", latency_s=pa.array([1.0] * 26 + [np.nan])),
        ("'latency_s' holds nan in row 26",),
    ),
    "negative": (
        lambda path: _rewrite(path / "iterations.parquet", latency_s=pa.array([-1.0] * 27)),
        ("'latency_s' holds -1.0 in row 0",),
    ),
    "null": (
        lambda path: _rewrite(path / "iterations.parquet", latency_s=pa.array([None] + [1.0] * 26)),
        ("'latency_s' is empty in row 0",),
    ),
}  # fmt: skip


def _tear(file):
    data = bytearray(file.read_bytes())
    data[4:400] = b"\0" * 396
    file.write_bytes(bytes(data))


def _other_provenance(path):
    metadata = pq.read_metadata(path / "power.parquet").metadata
    return json.dumps(json.loads(metadata[b"simslm.provenance"]) | {"date": "another day"}).encode()


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_traces_are_refused(trace, damage):
    harm, fragments = DAMAGES[damage]
    harm(trace.path)
    _refused(lambda: read_trace(trace.path), str(trace.path), *fragments)


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        ({"latency_ms": np.ones(27)}, ("unknown column 'latency_ms'", "did you mean 'latency_s'?")),
        ({"decode_seqs": None}, ("lacks column decode_seqs",)),
        ({"decode_seqs": np.full(27, 1.5)}, ("'decode_seqs' is not int64",)),
        ({"host_s": np.full(27, 9.0)}, ("has more host time than latency in row 0",)),
        ({"latency_s": np.zeros(27)}, ("'latency_s' holds 0.0",)),
        ({"latency_s": np.full(27, np.inf)}, ("'latency_s' holds inf",)),
        ({"decode_seqs": np.zeros(27, int)}, ("row 0",)),
        ({"prefill_seqs": np.zeros(27, int)}, ("prompt tokens",)),
        (
            {"prefill_seqs": np.full(27, 100) * np.array([0] * 12 + [1] * 15)},
            ("fewer prompt tokens than prompts",),
        ),
        ({"replicas": np.zeros(27, int)}, ("'replicas' holds 0",)),
    ],
)
def test_wrong_tables_are_not_written(tmp_path, columns, provenance, change, fragments):
    wrong = {name: values for name, values in {**columns, **change}.items() if values is not None}
    target = tmp_path / "cpu" / "m"
    _refused(lambda: write_trace(target, provenance=provenance, iterations=wrong), *fragments)
    assert not target.parent.exists()


def test_other_units_are_refused(tmp_path, columns, provenance):
    table = pa.table(columns)
    i = table.schema.get_field_index("latency_s")
    table = table.set_column(i, table.schema.field(i).with_metadata({"unit": "ms"}), table.column(i))
    _refused(
        lambda: write_trace(tmp_path / "m", provenance=provenance, iterations=table), "'latency_s' is in 'ms'"
    )


def test_wrong_provenance_is_not_written(tmp_path, columns, provenance):
    def write(**change):
        return lambda: write_trace(tmp_path / "m", provenance=provenance | change, iterations=columns)

    _refused(write(source="guessed"), "guessed", "measured, calibrated, imported, roofline")
    _refused(write(date=object()), "not plain JSON")
    _refused(write(date=float("nan")), "not plain JSON")
    for key in REQUIRED_PROVENANCE["measured"]:
        poor = {name: value for name, value in provenance.items() if name != key}
        _refused(lambda poor=poor: write_trace(tmp_path / "m", provenance=poor, iterations=columns), key)
    _refused(lambda: write_trace(tmp_path / "m", provenance=provenance), "needs iterations")


def test_a_calibrated_trace_has_terms_instead(tmp_path):
    provenance = {"source": "calibrated", "model": "m", "dtype": "bf16", "device": "d", "engine": "e"}
    terms = {"term": ["host"], "value": [-1e-3], "unit": ["s"]}
    provenance |= {"date": "2025-01-01", "command": "simslm calibrate"}
    write_trace(tmp_path / "m", provenance=provenance, terms=terms)
    trace = read_trace(tmp_path / "m")
    assert trace.source == "calibrated"
    assert trace.iterations is None
    assert trace.terms.to_pylist() == [{"term": "host", "value": -1e-3, "stderr": None, "unit": "s"}]


def test_what_a_run_left_is_no_trace(tmp_path, trace):
    run = tmp_path / "runs" / "small"
    run.mkdir(parents=True)
    pq.write_table(pa.table({"latency_s": [1.0]}), run / "iterations.parquet")
    assert [found.path for found in list_traces(tmp_path)] == [trace.path]
    pq.write_table(pa.table({"latency_s": [1.0]}), trace.path / "power.parquet")
    (found,) = list_traces(tmp_path)
    assert "power.parquet: has no simslm schema" in found.problem


def test_listing_shows_good_and_damaged_traces(tmp_path, trace, columns, provenance):
    write_trace(tmp_path / "cpu" / "another", provenance=provenance, iterations=columns, heldout=columns)
    (tmp_path / "cpu" / "another" / "heldout.parquet").write_bytes(b"PAR1")
    (tmp_path / "elsewhere").mkdir()
    bad, good = list_traces(tmp_path)
    assert good.path == trace.path
    assert good.rows == {"iterations": 27, "power": 1}
    assert good.provenance == trace.provenance
    assert good.problem == ""
    assert "heldout.parquet" in bad.problem
    assert list_traces(tmp_path / "nothing") == []
