"""``simslm traces``: list, show, check and import, on a whole trace and on damaged ones."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from simslm.traces.schema import PROVENANCE, REQUIRED_PROVENANCE, TABLES
from simslm.traces.terms import TERMS


def test_list(simslm, trace):
    ended = simslm("traces", "list")
    assert ended.code == 0
    assert "imported, mine 1" in ended.out
    (found,) = json.loads(simslm("traces", "list", "--json").out)
    assert found["rows"]["iterations"] == 60
    assert found["provenance"]["model"] == "opt-125m"


def test_runs_are_not_listed_as_traces(simslm, trace, scenario, here):
    assert simslm("simulate", scenario).code == 0
    found = json.loads(simslm("traces", "list", ".", "--json").out)
    assert [each["path"] for each in found] == ["traces/cpu/mine"]


def test_list_where_there_is_none(simslm, here):
    ended = simslm("traces", "list")
    assert (ended.code, ended.out) == (0, "")
    assert "no traces below traces" in ended.err
    assert json.loads(simslm("traces", "list", "--json").out) == []
    missing = simslm("traces", "list", "nowhere")
    assert missing.code == 2
    assert missing.complaint == "nowhere: no such directory"


def test_show(simslm, trace):
    ended = simslm("traces", "show", trace)
    assert ended.code == 0
    assert all(
        word in ended.out for word in ("imported", "opt-125m", "mine 1", "up to 8 decoding", "60 rows")
    )
    shown = json.loads(simslm("traces", "show", trace, "--json").out)
    assert shown["provenance"]["source"] == "imported"
    assert len(shown["content_hash"]) >= 32


def test_check(simslm, trace):
    ended = simslm("traces", "check", trace)
    assert ended.code == 0
    assert "error: " not in ended.out
    findings = json.loads(simslm("traces", "check", trace, "--json").out)["findings"]
    assert all({"severity", "what", "where", "remedy"} <= set(finding) for finding in findings)


def test_two_engines_side_by_side(simslm, trace, here):
    """The other engine takes twice as long to decode, and half as long for the rest."""
    head, *rows = (here / "steps.csv").read_text(encoding="utf-8").splitlines()
    other = [head]
    for row in rows:
        *shape, latency = row.split(",")
        factor = 2 if shape[2] == "0" else 0.5
        other.append(",".join([*shape, str(float(latency) * factor)]))
    (here / "other.csv").write_text("\n".join(other) + "\n", encoding="utf-8")
    options = (
        "--model",
        "opt-125m",
        "--device",
        "cpu",
        "--dtype",
        "fp32",
        "--engine",
        "theirs 2",
        "-o",
        "other",
    )
    assert simslm("traces", "import", "other.csv", *options).code == 0
    ended = simslm("traces", "compare", trace, "other")
    assert ended.code == 0
    assert "mine 1 in A, theirs 2 in B" in ended.out
    assert "decode: B takes 2 times as long as A (geometric mean over 12 shapes)" in ended.out
    assert "prefill: B takes 0.5 times as long as A (geometric mean over 4 shapes)" in ended.out
    found = json.loads(simslm("traces", "compare", trace, "other", "--json").out)
    assert found["engines"] == ["mine 1", "theirs 2"]
    assert found["mean_ratio"] == {name: pytest.approx(v) for name, v in
                                   (("decode", 2), ("prefill", 0.5), ("mixed", 0.5))}  # fmt: skip
    assert len(found["shapes"]) == 20
    for shape in found["shapes"]:
        ours, theirs = shape["tokens_per_s"]
        assert ours / theirs == pytest.approx(shape["ratio"])


def test_a_trace_beside_itself_differs_in_nothing(simslm, trace):
    ended = simslm("traces", "compare", trace, trace)
    assert ended.code == 0
    assert "decode: B takes 1 times as long as A (geometric mean over 12 shapes)" in ended.out
    assert " in A, " not in ended.out


def test_side_by_side_needs_one_model(simslm, trace, here):
    options = ("--model", "opt-350m", "--device", "cpu", "--engine", "e", "-o", "other")
    assert simslm("traces", "import", "steps.csv", *options).code == 0
    ended = simslm("traces", "compare", trace, "other")
    assert ended.code == 2
    assert "compare traces of one model" in ended.complaint


def test_a_trace_with_errors_fails_its_check(simslm, here):
    (here / "steps.csv").write_text("decode_seqs,decode_ctx_tokens,latency_s\n1,16,0.01\n", encoding="utf-8")
    options = ("--model", "opt-125m", "--device", "cpu", "--engine", "mine 1", "-o", "poor")
    assert simslm("traces", "import", "steps.csv", *options).code == 0
    ended = simslm("traces", "check", "poor")
    assert ended.code == 3
    assert "error: no prefill-only iterations" in ended.out
    as_json = simslm("traces", "check", "poor", "--json")
    assert as_json.code == 3
    assert "error" in {finding["severity"] for finding in json.loads(as_json.out)["findings"]}


def test_a_trace_is_simulated_on_and_named(simslm, trace, scenario, here):
    options = ("--set", f"cost={{trace: {trace}}}")
    (checked,) = json.loads(simslm("check", scenario, *options, "--json").out)["groups"]
    assert checked["cost_source"] == "imported"
    assert checked["engine"] == "mine 1"
    ended = simslm("simulate", scenario, *options, "-o", "out")
    assert ended.code == 0, ended.err
    assert "imported on mine 1" in ended.out
    manifest = json.loads((here / "out" / "manifest.json").read_text(encoding="utf-8"))
    (used,) = manifest["traces"]
    assert used["content_hash"] == json.loads(simslm("traces", "show", trace, "--json").out)["content_hash"]
    summary = json.loads((here / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["energy"]["total_j"] is None
    assert summary["energy"]["note"]
    assert 0 < summary["coverage"]["in_domain_time"] <= 1


def truncated(trace):
    data = (trace / "iterations.parquet").read_bytes()
    (trace / "iterations.parquet").write_bytes(data[: len(data) // 2])


def emptied(trace):
    (trace / "iterations.parquet").unlink()


def overwritten(trace):
    (trace / "iterations.parquet").write_text("decode_seqs,latency_s\n1,2\n", encoding="utf-8")


def foreign(trace):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"latency_s": [1.0]}), trace / "iterations.parquet")


def flipped(trace):
    path = trace / "iterations.parquet"
    data = bytearray(path.read_bytes())
    data[-4:] = b"RAP1"
    path.write_bytes(data)


def gone(trace):
    shutil.rmtree(trace)


def replaced_by_a_file(trace):
    shutil.rmtree(trace)
    trace.write_text("no trace", encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage", [truncated, emptied, overwritten, foreign, flipped, gone, replaced_by_a_file]
)
def test_a_damaged_trace_exits_3(simslm, trace, scenario, here, damage):
    damage(trace)
    for command in (
        ("traces", "show", trace),
        ("traces", "check", trace),
        ("check", scenario, "--set", f"cost={{trace: {trace}}}"),
        ("simulate", scenario, "--set", f"cost={{trace: {trace}}}", "-o", "out"),
    ):
        ended = simslm(*command)
        assert ended.code == 3, command
        assert str(trace) in ended.complaint
        assert ended.out == ""
    assert not (here / "out").exists()


def test_a_trace_of_another_model_exits_3(simslm, trace, scenario):
    ended = simslm("simulate", scenario, "--set", f"cost={{trace: {trace}}}", "--set", "model=smollm2-135m")
    assert ended.code == 3
    assert "is of model 'opt-125m'" in ended.complaint


IMPORT = ("--model", "opt-125m", "--device", "cpu", "--engine", "mine 1")
HEADER = "decode_seqs,decode_ctx_tokens,latency_s\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (HEADER + "1,16,fast\n", "latency_s"),
        (HEADER + "1,16,-1\n", "latency_s"),
        (HEADER + "1,16,nan\n", "latency_s"),
        (HEADER, "no rows"),
        ("", "steps.csv"),
        (HEADER.replace("latency_s", "latency"), "did you mean 'latency_s'"),
        ("latency_s\n1\n", "decode_seqs"),
        ("\x00\x01", "steps.csv"),
    ],
)
def test_a_bad_table_is_not_imported(simslm, here, content, words):
    (here / "steps.csv").write_text(content, encoding="utf-8")
    ended = simslm("traces", "import", "steps.csv", *IMPORT, "-o", "out")
    assert ended.code == 3
    assert words in ended.complaint
    assert [path.name for path in here.iterdir()] == ["steps.csv"]


def test_an_import_never_replaces_a_file(simslm, here):
    (here / "steps.csv").write_text(HEADER + "1,16,0.01\n", encoding="utf-8")
    (here / "thesis.txt").write_text("precious", encoding="utf-8")
    ended = simslm("traces", "import", "steps.csv", *IMPORT, "-o", "thesis.txt")
    assert ended.code == 2
    assert (here / "thesis.txt").read_text(encoding="utf-8") == "precious"


def test_an_import_replaces_a_trace_only_when_told_to(simslm, trace, here):
    before = (trace / "iterations.parquet").read_bytes()
    (here / "others.csv").write_text(HEADER + "1,16,0.01\n", encoding="utf-8")
    ended = simslm("traces", "import", "others.csv", *IMPORT, "-o", trace)
    assert ended.code == 2
    assert ended.complaint.startswith(f"{trace}: holds a trace already; ")
    assert (trace / "iterations.parquet").read_bytes() == before
    assert simslm("traces", "import", "others.csv", *IMPORT, "-o", trace, "--replace").code == 0
    assert (trace / "iterations.parquet").read_bytes() != before


def test_an_import_of_an_unknown_model_says_what_that_means(simslm, here):
    (here / "steps.csv").write_text(HEADER + "1,16,0.01\n", encoding="utf-8")
    options = ("--model", "opt-125", "--device", "cpu", "--engine", "mine 1")
    ended = simslm("traces", "import", "steps.csv", *options, "-o", "out")
    assert ended.code == 0
    assert "model 'opt-125' is not in the catalogue (did you mean 'opt-125m'?)" in ended.err
    assert ended.out == "out\n"


PAGE = Path(__file__).parents[2] / "docs" / "trace-format.md"


def test_the_page_of_the_format_is_what_the_schema_says(simslm):
    ended = simslm("traces", "schema")
    assert ended.code == 0
    assert ended.out == PAGE.read_text(encoding="utf-8"), "simslm traces schema > docs/trace-format.md"


def test_the_page_names_every_column_term_and_key_of_a_provenance(simslm):
    page = PAGE.read_text(encoding="utf-8")
    columns = {field.name for table in TABLES.values() for field in table}
    missing = [name for name in (*columns, *TERMS, *PROVENANCE) if f"| `{name}` |" not in page]
    assert not missing
    assert set().union(*map(set, REQUIRED_PROVENANCE.values())) == set(PROVENANCE)
    told = json.loads(simslm("traces", "schema", "--json").out)
    assert {column["name"] for table in told["tables"].values() for column in table["columns"]} == columns
    assert all({"unit", "doc", "type"} <= column.keys() for column in told["tables"]["kernels"]["columns"])


def test_the_code_of_the_page_runs_on_a_trace(monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(PAGE.parents[1])
    exec(compile(code, str(PAGE), "exec"), {})
    assert capsys.readouterr().out.splitlines()[1] == "s"
