"""The page of a search: complete, escaped, offline, from its files alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from support.pages import own, valid

import simslm
from simslm.api import load_scenario
from simslm.errors import UsageError
from simslm.report import write_report
from simslm.report.search import read_frontier, read_trials, view
from simslm.report.tradeoff import scale, tradeoff_figure
from simslm.search import files

EVIL = "</script><script>document.title='broken'</script><b onclick=x>@accent"


@pytest.fixture
def directory(searched, tmp_path) -> Path:
    """Three objectives, a constraint that some break, and a point that cannot be."""
    searched["name"] = f"asked {EVIL}"
    searched["search"] |= {
        "space": {"deployment.engine.max_num_seqs": [1, 4, 16, 4096]},
        "objectives": {
            "throughput.output_tokens_per_s": "max",
            "itl_s.p50": "min",
            "energy.j_per_output_token": "min",
        },
        "constraints": ["throughput.output_tokens_per_s >= 1000"],
        "replications": 3,
    }
    files.write(tmp_path, simslm.search(load_scenario(searched), jobs=1, again=["asked.yaml"]))
    return tmp_path


def test_the_page_holds_everything(directory):
    frontier = read_frontier(directory / "frontier.json")
    text = own(write_report([directory]).read_text(encoding="utf-8"))
    for point in frontier["points"]:
        assert point["command"] in text
        assert point["vllm"] in text
        assert f'data-copy="point-{point["point"]}-simulate"' in text
        assert f'data-copy="point-{point["point"]}-vllm"' in text
    for words in (
        '<span class="pill roofline">roofline</span> not measured',
        "2 points on the frontier",
        "deployment.engine: max_num_batched_tokens (2048) must be at least max_num_seqs (4096)",
        "1 of 3 points; the closest has",
        'id="growth"',
        'id="tradeoff-throughput-output_tokens_per_s-itl_s-p50"',
        'id="tradeoff-itl_s-p50-energy-j_per_output_token"',
        "ITL: inter-token latency",
    ):
        assert words in text, words


def test_it_loads_nothing_runs_nothing_foreign_and_is_the_same_again(directory):
    text = write_report([directory]).read_text(encoding="utf-8")
    assert write_report([directory]).read_text(encoding="utf-8") == text
    assert EVIL not in own(text)
    assert not re.search(r"(?:src|href)=[\"'](?!#)", own(text))


def drawn(directory: Path) -> list[dict[str, Any]]:
    shown = view(read_frontier(directory / "frontier.json"), read_trials(directory / "trials.parquet"))
    assert shown.growth is not None
    return [plot.figure for plot in (*shown.plots, shown.growth)]


def test_plotly_takes_the_figures_and_the_palette_has_their_colours(directory):
    figures = drawn(directory)
    assert len(figures) == 4
    assert all(valid(figure).data for figure in figures)


def test_what_is_drawn_is_what_is_in_the_files(directory):
    frontier = read_frontier(directory / "frontier.json")
    first = drawn(directory)[0]
    breaking, dominated, chosen = first["data"]
    assert (len(breaking["x"]), len(dominated["x"])) == (1, 0)
    expected = sorted(
        (
            float(f"{point['runs'][0]['values']['throughput.output_tokens_per_s']:.6g}"),
            float(f"{1e3 * point['runs'][0]['values']['itl_s.p50']:.6g}"),
        )
        for point in frontier["points"]
    )
    assert sorted(zip(chosen["x"], chosen["y"], strict=True)) == expected
    growth = drawn(directory)[-1]["data"][0]
    assert growth["y"][-1] == 100
    assert sorted(growth["y"]) == growth["y"]


def test_counts_say_what_became_of_every_point(directory):
    shown = view(read_frontier(directory / "frontier.json"), read_trials(directory / "trials.parquet"))
    counts = dict(shown.counts)
    assert counts["points"] == "4"
    assert [counts[name] for name in ("cannot be", "break a constraint", "left out after a short run")] == [
        "1", "1", "0"
    ]  # fmt: skip
    assert shown.points[0].parameters == ["16"]
    assert " ± " in shown.points[0].objectives[0]


def test_a_search_of_one_objective_has_no_pairs(searched, tmp_path):
    searched["search"]["objectives"] = {"itl_s.p50": "min"}
    files.write(tmp_path, simslm.search(load_scenario(searched), jobs=1))
    shown = view(read_frontier(tmp_path / "frontier.json"), read_trials(tmp_path / "trials.parquet"))
    assert shown.plots == []
    assert write_report([tmp_path]).exists()


def test_a_wide_range_is_drawn_on_a_logarithm(directory):
    shown = view(read_frontier(directory / "frontier.json"), read_trials(directory / "trials.parquet"))
    assert shown.plots[0].figure["layout"]["xaxis"].get("type") is None
    from simslm.report.search import _cloud

    cloud = _cloud(read_frontier(directory / "frontier.json"), read_trials(directory / "trials.parquet"))
    cloud.values["itl_s.p50"][0] /= 1000
    unit = scale("itl_s.p50", cloud.values["itl_s.p50"].tolist())
    figure = tradeoff_figure(unit, scale("throughput.output_tokens_per_s", []), cloud)
    assert figure["layout"]["xaxis"]["type"] == "log"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("frontier.json", b"{", "not a readable JSON file"),
        ("frontier.json", b'{"name": "x"}', "missing keys: method"),
        ("trials.parquet", b"PAR1", "not a readable Parquet file"),
        ("trials.parquet", None, "not a readable Parquet file"),
    ],
)
def test_a_damaged_file_is_named(directory, name, content, words):
    if content is None:
        (directory / name).unlink()
    else:
        (directory / name).write_bytes(content)
    with pytest.raises(UsageError, match=words) as caught:
        write_report([directory])
    assert name in str(caught.value)
    assert "simslm search" in str(caught.value)
