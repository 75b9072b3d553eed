"""The page of a search: complete, escaped, offline, from its files alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from support.pages import own, valid

import simslm
from simslm.api import load_scenario
from simslm.errors import UsageError
from simslm.report import write_report
from simslm.report.explorer import MOST_CELLS, MOST_POINTS, labels, yaml_text
from simslm.report.search import SearchView, read_frontier, read_trials, view
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
        "Choose max_num_seqs 16: ",
        "2 of them on the frontier",
        "deployment.engine: max_num_batched_tokens (2048) must be at least max_num_seqs (4096)",
        "1 of 3 points; the closest has",
        'id="growth"',
        'id="explorer"',
        'id="shares"',
        "ITL: inter-token latency",
    ):
        assert words in text, words


def test_it_loads_nothing_runs_nothing_foreign_and_is_the_same_again(directory):
    text = write_report([directory]).read_text(encoding="utf-8")
    assert write_report([directory]).read_text(encoding="utf-8") == text
    assert EVIL not in own(text)
    assert not re.search(r"(?:src|href)=[\"'](?!#)", own(text))


def shown(directory: Path) -> SearchView:
    return view(read_frontier(directory / "frontier.json"), read_trials(directory / "trials.parquet"))


def test_plotly_takes_the_figures_and_the_palette_has_their_colours(directory):
    found = shown(directory)
    assert found.importance is not None
    assert found.growth is not None
    assert all(valid(plot.figure).data for plot in (found.importance, found.growth))
    growth = found.growth.figure["data"][0]
    assert growth["y"][-1] == 100
    assert sorted(growth["y"]) == growth["y"]


def test_what_is_explored_is_what_is_in_the_files(directory):
    frontier = read_frontier(directory / "frontier.json")
    found = shown(directory).explorer
    assert found is not None
    data = found.data
    assert len(data["numbers"]) == 3  # one of four points cannot be
    for point in frontier["points"]:
        at = data["numbers"].index(point["point"])
        for path, estimate in point["objectives"].items():
            seeds = data["seeds"][path][at]
            assert seeds == [run["values"][path] for run in point["runs"]]
            assert sum(seeds) / len(seeds) == estimate["value"]
        for role in ("command", "vllm"):
            words = [data["words"][word] for word in data["uses"][role][at]]
            assert data["dividers"][role].join(words) == point[role]
    first = data["bounds"][0]
    assert (first["path"], first["sign"], first["bound"]) == ("throughput.output_tokens_per_s", 1, 1000)
    assert [each["path"] for each in data["figures"]][:3] == list(frontier["objectives"])


def test_counts_say_what_became_of_every_point(directory):
    found = shown(directory)
    counts = dict(found.counts)
    assert counts["points"] == "4"
    assert [counts[name] for name in ("infeasible", "break a constraint", "left out after a short run")] == [
        "1", "1", "0"
    ]  # fmt: skip
    assert found.points[0].parameters == ["16"]
    assert " ± " in found.points[0].objectives[0]


def test_a_search_of_one_objective_has_its_parameters_as_axes(searched, tmp_path):
    searched["search"]["objectives"] = {"itl_s.p50": "min"}
    files.write(tmp_path, simslm.search(load_scenario(searched), jobs=1))
    found = shown(tmp_path).explorer
    assert found is not None
    assert len(found.data["axes"]) == 3
    assert [path for path, _ in found.numeric] == list(searched["search"]["space"])
    assert write_report([tmp_path]).exists()


def test_a_search_in_which_nothing_can_be_says_why_and_explores_nothing(searched, tmp_path):
    searched["search"]["space"] = {"deployment.engine.max_num_seqs": [4096, 8192]}
    files.write(tmp_path, simslm.search(load_scenario(searched), jobs=1))
    found = shown(tmp_path)
    assert (found.explorer, found.importance, found.growth) == (None, None, None)
    assert "No point is feasible" in write_report([tmp_path]).read_text(encoding="utf-8")


def test_one_point_alone_is_explored(searched, tmp_path):
    searched["search"]["space"] = {"deployment.engine.max_num_seqs": [4]}
    files.write(tmp_path, simslm.search(load_scenario(searched), jobs=1))
    found = shown(tmp_path)
    assert found.explorer is not None
    assert len(found.explorer.plots) == 1
    assert found.importance is None
    assert write_report([tmp_path]).exists()


@pytest.mark.slow
def test_a_page_of_very_many_points_with_long_commands_stays_small(directory):
    """20,000 points that serve 30 replicas each: the frontier's have their commands, the page stays below its limit."""
    frontier = read_frontier(directory / "frontier.json")
    trials = read_trials(directory / "trials.parquet")
    first = trials["trial"].index(next(each["point"] for each in frontier["points"]))
    many = 20_000
    chosen = many - 1
    grown = {name: [column[first]] * many for name, column in trials.items()}
    grown["trial"] = grown["point"] = list(range(many))
    grown["hypervolume"] = [float(i) for i in range(many)]
    grown["parameters.deployment.engine.max_num_seqs"] = [1 + i % 5000 for i in range(many)]
    grown["vllm"] = [f"vllm serve --port {i} {'--flag value ' * 300}" for i in range(many)]
    found = frontier | {"points": [frontier["points"][0] | {"point": chosen}]}
    page = view(found, grown).explorer
    assert page is not None
    assert len(page.data["numbers"]) <= MOST_POINTS + 1
    at = page.data["numbers"].index(chosen)
    words = [page.data["words"][word] for word in page.data["uses"]["vllm"][at]]
    assert " ".join(words) == grown["vllm"][chosen]
    assert [] in page.data["uses"]["vllm"]
    (levels,) = (each["ranges"]["levels"] for each in page.data["parameters"])
    assert len(levels) == MOST_CELLS
    assert len(json.dumps(page.data, separators=(",", ":"))) < 6_000_000


def test_a_scenario_is_written_as_yaml_that_reads_back():
    value = {
        "a": {"b_c": 1, "d": [1, {"e": None}], "odd: key": "x: y # z"},
        "f": {},
        "g": "\u2028 and\n",
        "h": 1e-05,
    }
    assert YAML(typ="safe", pure=True).load(yaml_text(value)) == value


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a.b.c"], ["c"]),
        (["a.b.c", "a.d.c"], ["b.c", "d.c"]),
        (["c", "a.c"], ["c", "a.c"]),
        (["seed", "deployment.engine.block_size"], ["seed", "block_size"]),
    ],
)
def test_parameters_have_the_shortest_names_that_tell_them_apart(paths, names):
    assert labels(paths) == names


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
