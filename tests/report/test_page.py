"""The page: complete, escaped, offline, the same bytes for the same files, written whole or not at all."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.pages import own

from simslm.errors import UsageError
from simslm.report import render_run, write_report
from simslm.report.page import coded, json_block
from simslm.units import joules

MEGABYTE = 1_000_000


def edited(directory: Path, target: Path, name: str, change: Callable[[dict[str, Any]], None]) -> Path:
    copy = Path(shutil.copytree(directory, target))
    content = json.loads((copy / name).read_text())
    change(content)
    (copy / name).write_text(json.dumps(content))
    return copy


@pytest.fixture(scope="module")
def page(quiet_run: Path) -> str:
    return render_run(quiet_run)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "SLO met",
        "What bounded it",
        "time to first token: first output token’s time − arrival",
        "Kept by, of arrived",
        "Energy: integral of device power over the makespan",
        "Busy time inside the domain",
        "simslm simulate scenarios/quiet.yaml --seed 7",
        "max_num_batched_tokens: 2048",
        "sha256:0123456789ab",
        'id="run-1-ttft_s"',
        'id="run-1-tpot_s"',
        'id="run-1-e2e_s"',
        'id="run-1-timeline"',
        'id="run-1-itl_s"',
        'id="run-1-first"',
        'id="run-1-life"',
        'aria-label="Beginning of the time shown"',
        'data-rank="ttft_s"',
        '<nav aria-label="On this page">',
    ],
)
def test_the_page_holds(page: str, words: str):
    assert words in own(page)


def test_the_page_loads_nothing(page: str):
    assert "default-src 'none'" in page
    assert not re.search(r"<(?:link|img|iframe)\b|\bsrc=|@import|url\(", own(page))


def test_figures_are_checked_against_the_plotly_that_draws_them(page: str):
    from plotly.offline import get_plotlyjs_version

    assert f"plotly.js v{get_plotlyjs_version()}" in page
    assert "The above copyright notice and this permission notice shall be included" in page


def test_the_same_files_give_the_same_bytes(quiet_run: Path, tmp_path: Path, page: str):
    copy = shutil.copytree(quiet_run, tmp_path / "elsewhere")
    assert render_run(Path(copy)) == page


def test_the_page_is_small(page: str):
    assert len(page.encode()) < 8 * MEGABYTE
    assert len(own(page).encode()) < MEGABYTE


@pytest.mark.slow
def test_a_long_run_is_thinned(quiet_run: Path, tmp_path: Path):
    """A hundred times the rows make a page hardly larger."""
    copy = Path(shutil.copytree(quiet_run, tmp_path / "long"))
    for name, columns in {"requests": ["arrival_s", "first_token_s"], "iterations": ["start_s"]}.items():
        table = pq.read_table(copy / f"{name}.parquet")
        shifted = []
        for turn in range(100):
            part = table
            for column in columns:
                later = pa.array(part[column].to_numpy() + 60.0 * turn)
                part = part.set_column(part.column_names.index(column), column, later)
            shifted.append(part)
        pq.write_table(pa.concat_tables(shifted), copy / f"{name}.parquet")
    assert len(own(render_run(copy)).encode()) < MEGABYTE


def test_what_comes_from_files_is_escaped(quiet_run: Path, tmp_path: Path):
    evil = "</script><script>document.title='broken'</script><b onclick=x>"

    def poison(content: dict[str, Any]) -> None:
        for key in ("name", "command"):
            if key in content:
                content[key] = evil
        content.get("scenario", {})["name"] = evil
        content.get("cost", {}).update(source=evil, engine=evil)

    copy = edited(quiet_run, tmp_path / "a", "summary.json", poison)
    copy = edited(copy, tmp_path / "b", "manifest.json", poison)
    text = render_run(copy)
    assert "<script>document" not in text
    assert "<b onclick" not in text
    assert "&lt;b onclick" in text


def test_json_cannot_close_its_script():
    assert json_block({"a": "</script>"}) == '{"a":"\\u003c/script>"}'
    with pytest.raises(ValueError, match="JSON"):
        json_block(float("nan"))


def test_code_and_units_in_sentences():
    assert (
        coded("raise `a_b` by 4.1 s & 3 %")
        == "raise <code>a_b</code> by 4.1\N{NO-BREAK SPACE}s &amp; 3\N{NO-BREAK SPACE}%"
    )
    assert coded("<i>`x`") == "&lt;i&gt;<code>x</code>"


def test_the_resolved_scenario_reads_back(quiet_run: Path, page: str):
    from ruamel.yaml import YAML

    found = re.search(r'<pre id="run-1-scenario" tabindex="0">(.*?)</pre>', page, flags=re.S)
    assert found is not None
    manifest = json.loads((quiet_run / "manifest.json").read_text())
    assert YAML(typ="safe").load(found[1]) == manifest["scenario"]
    assert list(YAML(typ="safe").load(found[1])) == list(manifest["scenario"])


def test_a_roofline_says_so_on_top(make_run: Callable[..., Path]):
    text = own(
        render_run(make_run(name="roof", source="roofline", in_domain=0.0, power_note="no power <here>"))
    )
    assert text.index("Roofline, not measured") < text.index(">What bounded it</h2>")
    assert "Power is unknown: no power &lt;here&gt;" in text
    assert "unknown energy" in text


def test_little_coverage_is_a_warning(make_run: Callable[..., Path], page: str):
    text = own(render_run(make_run(name="beyond", in_domain=0.61, num_requests=30)))
    assert "Only 61\N{NO-BREAK SPACE}% of the simulated busy time lies inside the measured domain" in text
    assert 'class="warning" role="note"' not in page


def test_the_manifest_tells_of_the_workload_the_trace_and_an_interruption(quiet_run: Path, tmp_path: Path):
    def extend(content: dict[str, Any]) -> None:
        content["interrupted"] = True
        content["workload"] = {
            "source": "replay.csv",
            "dropped": {"no output": 3},
            "notes": ["times rescaled"],
        }
        content["traces"][0].update(cpu="some processor", host_time="laying out the batch")
        content["files"] = [{"path": "replay.csv", "sha256": "0123456789abcdef" * 4}]

    text = own(render_run(edited(quiet_run, tmp_path / "run", "manifest.json", extend)))
    assert "The simulation was interrupted" in text
    assert "replay.csv · 3 dropped: no output · times rescaled" in text
    assert "some processor" in text
    assert "laying out the batch" in text
    assert "traces/h200/opt-1.3b-bf16 · NVIDIA H200" in text
    assert "replay.csv · content 0123456789ab" in text


def test_a_run_in_which_nothing_ran(quiet_run: Path, tmp_path: Path):
    def reject(content: dict[str, Any]) -> None:
        content["requests"].update(finished=0, rejected=300)
        content["makespan_s"] = 0.0
        content.update({key: {"p50": None} for key in ("ttft_s", "tpot_s", "itl_s", "e2e_s", "queue_s")})
        content["energy"] = {"note": "nothing ran"}

    copy = edited(quiet_run, tmp_path / "none", "summary.json", reject)
    for name in ("stages", "gaps"):
        (copy / f"{name}.parquet").unlink()
    iterations = pq.read_table(copy / "iterations.parquet")
    pq.write_table(iterations.slice(0, 0), copy / "iterations.parquet")
    requests = pq.read_table(copy / "requests.parquet")
    for name in ("first_token_s", "ttft_s", "tpot_s", "e2e_s", "queue_s"):
        index = requests.column_names.index(name)
        requests = requests.set_column(index, name, pa.nulls(len(requests), pa.float64()))
    index = requests.column_names.index("status")
    requests = requests.set_column(index, "status", pa.array(["rejected"] * len(requests)))
    pq.write_table(requests, copy / "requests.parquet")
    text = own(render_run(copy))
    assert "Nothing finished" in text
    assert "No iteration ran" in text
    assert "no distribution to draw" in text


@pytest.mark.slow
def test_several_runs_share_one_page(quiet_run: Path, make_run: Callable[..., Path], tmp_path: Path):
    other = make_run(name="other", num_requests=40)
    target = write_report([quiet_run, other], tmp_path / "both.html")
    text = target.read_text(encoding="utf-8")
    assert text.count("plotly.js v") == render_run(quiet_run).count("plotly.js v")
    assert 'id="run-2-timeline"' in text
    assert '<a href="#run-2">other</a>' in text
    assert len(text.encode()) < 8 * MEGABYTE


@pytest.mark.slow
def test_every_id_is_unique(make_run: Callable[..., Path], quiet_run: Path, tmp_path: Path):
    text = own(write_report([quiet_run, quiet_run], tmp_path / "twice.html").read_text(encoding="utf-8"))
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:labelledby|data-copy)="([^"]+)"', text)) <= set(ids)


def test_the_page_goes_beside_the_run(quiet_run: Path, tmp_path: Path, page: str):
    copy = Path(shutil.copytree(quiet_run, tmp_path / "run"))
    assert write_report([copy]) == copy / "report.html"
    assert (copy / "report.html").read_text(encoding="utf-8") == page
    assert sorted(path.name for path in copy.iterdir()) == [
        "gaps.parquet",
        "iterations.parquet",
        "manifest.json",
        "report.html",
        "requests.parquet",
        "stages.parquet",
        "summary.json",
    ]


def test_several_runs_go_to_their_common_parent(quiet_run: Path, tmp_path: Path):
    runs = [Path(shutil.copytree(quiet_run, tmp_path / name)) for name in ("a", "b")]
    assert write_report(runs) == tmp_path / "report.html"
    with pytest.raises(UsageError, match="no common parent"):
        write_report([runs[0], quiet_run])
    with pytest.raises(UsageError, match="no run directory"):
        write_report([])


def test_a_page_that_cannot_be_written_leaves_nothing(quiet_run: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="cannot be written"):
        write_report([quiet_run], tmp_path / "missing" / "report.html")
    (tmp_path / "taken.html").mkdir()
    with pytest.raises(UsageError, match="cannot be written"):
        write_report([quiet_run], tmp_path / "taken.html")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.html"]


def test_a_damaged_run_leaves_the_old_page(quiet_run: Path, tmp_path: Path):
    copy = Path(shutil.copytree(quiet_run, tmp_path / "run"))
    (copy / "report.html").write_text("old")
    (copy / "summary.json").unlink()
    with pytest.raises(UsageError):
        write_report([copy])
    assert (copy / "report.html").read_text() == "old"


@pytest.mark.parametrize(("value", "text"), [(0.5, "0.5 J"), (8340.0, "8.34 kJ"), (7.2e6, "2 kWh")])
def test_joules(value: float, text: str):
    assert joules(value) == text


def test_importing_the_room_is_cheap():
    heavy = "{'numpy', 'pandas', 'plotly', 'pyarrow', 'jinja2', 'scipy'}"
    code = (
        f"import sys, simslm.report; found = {heavy} & set(sys.modules); sys.exit(str(found) if found else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
