"""Which prompts begin alike: generated prefixes, and the hashes of Mooncake traces."""

import json
from pathlib import Path

import numpy as np
import pytest

from simslm.errors import ScenarioError
from simslm.scenario.workload import Prefixes, Workload
from simslm.workload import generate
from simslm.workload.prefixes import HashChains, shared_prefixes
from simslm.workload.readers import read_trace
from simslm.workload.streams import stream


def drawn(prompts, seed=0, **given):
    return shared_prefixes(Prefixes(**given), np.asarray(prompts), stream(seed, "prefixes"))


def test_prefixes_are_shared_in_whole_units():
    units = drawn([200] * 1000, count=3, tokens=100)
    assert set(units) == {tuple(range(first, first + 6)) for first in (0, 6, 12)}
    counts = [units.count(tuple(range(first, first + 6))) for first in (0, 6, 12)]
    assert min(counts) == pytest.approx(333, abs=60)


def test_a_share_of_the_prompts_has_one():
    units = drawn([200] * 5000, count=2, tokens=32, share=0.3)
    assert np.mean([chain != () for chain in units]) == pytest.approx(0.3, abs=0.03)


def test_a_prompt_that_is_shorter_is_the_beginning_of_a_prefix():
    long, short = drawn([500] * 50, count=4, tokens=160), drawn([50] * 50, count=4, tokens=160)
    assert {len(chain) for chain in long} == {10}
    assert short == [chain[:3] for chain in long]
    assert drawn([15], count=1, tokens=16) == [()]


def test_equal_prefixes_are_one_object():
    """A workload of a million prompts with a long prefix holds a million references, not copies."""
    units = drawn([5000] * 100, count=1, tokens=4096)
    assert len({id(chain) for chain in units}) == 1


def test_a_longer_prefix_or_more_of_them_keeps_who_has_one():
    some, other = (
        drawn([900] * 200, count=5, tokens=64, share=0.5),
        drawn([900] * 200, count=9, tokens=640, share=0.5),
    )
    assert [chain != () for chain in some] == [chain != () for chain in other]


def test_a_generated_workload_has_them():
    workload = {
        "num_requests": 20,
        "arrivals": {"process": "all-at-once"},
        "prompt_tokens": {"dist": "fixed", "value": 100},
        "output_tokens": {"dist": "fixed", "value": 1},
        "prefixes": {"count": 2, "tokens": 48},
    }
    found = generate(Workload.model_validate(workload), 3, 4096, Path())
    assert found.unit_tokens == 16
    assert set(found.units) == {(0, 1, 2), (3, 4, 5)}


def test_recorded_hashes_become_chains():
    """Equal numbers mean equal prompts up to there, even where a file's hashes repeat or differ in length."""
    hashes = [[7, 8], [7, 8], [8, 7], [7, 7, 7], [], [7, 8]]
    chains = HashChains(512)(hashes, [1024, 1024, 1024, 1500, 9, 600])
    assert chains == [(0, 1), (0, 1), (2, 3), (0, 4, 5), (), (0, 6)]


@pytest.mark.parametrize("name", ["conversation", "synthetic", "arxiv_toollike"])
def test_mooncake_hashes_are_the_units(name, workloads):
    path = workloads / f"mooncake_{name}.jsonl"
    rows = [json.loads(line)["hash_ids"] for line in path.read_text().splitlines()]
    recording, _ = read_trace(path, "mooncake")
    assert recording.unit_tokens == 512
    assert len(recording.units) == len(rows)
    pairs = {
        pair
        for row, chain in zip(rows, recording.units, strict=True)
        for pair in zip(row, chain, strict=True)
    }
    assert len(pairs) == len(dict(pairs)) == len({unit for _, unit in pairs})
    replayed = generate(
        Workload.model_validate({"replay": {"format": "mooncake", "path": path.name, "limit": 20}}),
        0,
        4096,
        path.parent,
    )
    order = np.argsort(recording.ticks, kind="stable")[:20]
    assert replayed.units == [recording.units[row] for row in order]
    assert replayed.unit_tokens == 512


LINE = '{"timestamp": 1, "input_length": 600, "output_length": 3%s}'


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (', "hash_ids": [1, 2, 3]', "expected at most 2 for 600 prompt tokens, found 3"),
        (', "hash_ids": [1, null]', "hash_ids: expected a list of whole numbers"),
        (', "hash_ids": ["a"]', "hash_ids: expected a list of whole numbers"),
        (', "hash_ids": {"a": [1]}', "hash_ids: expected a list of whole numbers"),
        (', "hash_ids": [18446744073709551616]', "hash_ids: expected a list of whole numbers"),
    ],
)
def test_hashes_that_make_no_sense_are_named_by_their_line(more, message, tmp_path):
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join([LINE % ', "hash_ids": [1]', "", LINE % more, LINE % ""]))
    with pytest.raises(ScenarioError, match=message) as caught:
        read_trace(path, "mooncake")
    assert caught.value.where.endswith("trace.jsonl:3")


def test_hashes_may_be_missing(tmp_path):
    path = tmp_path / "trace.jsonl"
    dropped = LINE.replace("600", "0") % ', "hash_ids": []'
    path.write_text("\n".join([LINE % "", dropped, LINE % ', "hash_ids": [5]', LINE % ', "hash_ids": null']))
    assert read_trace(path, "mooncake")[0].units == [(), (0,), ()]
    path.write_text(LINE % "")
    recording, _ = read_trace(path, "mooncake")
    assert recording.units is None
    assert recording.unit_tokens == 0
