"""Points of a space, and what is wrong with one whatever the others are."""

from __future__ import annotations

import numpy as np
import pytest

from simslm.api import load_scenario
from simslm.errors import ScenarioError
from simslm.policies.registry import registered
from simslm.scenario.search import Range
from simslm.search.space import Space, identity, overridden, plain, space

SPACE = Space({"a": (1, 2, 3), "b": ("x", "y")})


def test_the_grid_has_every_combination_once():
    points = [tuple(point.values()) for point in SPACE.grid()]
    assert points == [(1, "x"), (1, "y"), (2, "x"), (2, "y"), (3, "x"), (3, "y")]


def test_drawn_points_are_different_and_of_the_grid():
    grid = [identity(point) for point in SPACE.grid()]
    seen = set()
    for seed in range(40):
        drawn = [identity(point) for point in SPACE.drawn(np.random.default_rng(seed), 4)]
        assert len(set(drawn)) == 4
        seen.update(drawn)
    assert seen == set(grid)
    assert [identity(point) for point in SPACE.drawn(np.random.default_rng(0), 99)] == grid


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        (Range(low=2, high=5), {2, 3, 4, 5}),
        (Range(low=2, high=9, step=3), {2, 5, 8}),
        (Range(low=1, high=4, log=True), {1, 2, 3, 4}),
        (Range(low=0.5, high=1.6, step=0.5), {0.5, 1.0, 1.5}),
    ],
)
def test_a_range_has_all_its_steps(axis, values):
    drawn = Space({"a": axis}).drawn(np.random.default_rng(0), 50)
    assert {point["a"] for point in drawn} == values
    assert {type(point["a"]) for point in drawn} == {type(next(iter(values)))}


def test_a_range_of_reals_stays_inside():
    drawn = Space({"a": Range(low=0.25, high=4.0, log=True)}).drawn(np.random.default_rng(0), 400)
    values = np.array([point["a"] for point in drawn])
    assert len(set(values)) == 400
    assert values.min() >= 0.25
    assert values.max() <= 4
    assert abs(np.mean(values < 1) - 0.5) < 0.1  # even in the logarithm


def test_what_is_stated_comes_back_the_same(searched):
    scenario = load_scenario(searched)
    again = overridden(plain(scenario), {})
    assert again.model_dump() == scenario.model_copy(update={"search": None}).model_dump()
    assert again.deployment.engine.model_fields_set == scenario.deployment.engine.model_fields_set


def faults(mapping: dict, points: dict) -> list[str]:
    mapping["search"]["space"] = points
    scenario = load_scenario(mapping)
    assert scenario.search is not None
    with pytest.raises(ScenarioError) as caught:
        space(scenario, scenario.search)
    return [problem.removeprefix("scenario: search.space: ") for problem in caught.value.problems]


def test_a_key_that_does_not_exist_and_a_value_it_cannot_take(searched):
    assert faults(searched, {"deployment.engine.max_num_seq": [1], "deployment.num_devices": [1, 0]}) == [
        "deployment.num_devices: input should be greater than or equal to 1, got 0",
        "deployment.engine.max_num_seq: unknown key (did you mean 'max_num_seqs'?)",
    ]
    assert faults(searched, {"deployment.engine.batching": ["static", "statik"]}) == [
        "deployment.engine.batching.policy: unknown policy 'statik' (did you mean 'static'?); "
        f"known: {', '.join(entry.name for entry in registered('batching'))}"
    ]
    assert faults(searched, {"search.near": [0.1]}) == ["a search cannot vary itself"]


def test_a_rule_between_keys_is_for_the_points(searched):
    """Two replicas need a way to share their device: with one of the values of the other key they have it."""
    searched["search"]["space"] = {
        "deployment.replicas_per_device": [1, 2],
        "deployment.sharing": ["none", "mps"],
    }
    scenario = load_scenario(searched)
    assert scenario.search is not None
    assert len(space(scenario, scenario.search)) == 4


def test_equal_values_are_one_point(searched):
    searched["search"]["space"] = {"deployment.engine.max_num_seqs": [4, 4, 8]}
    scenario = load_scenario(searched)
    assert scenario.search is not None
    assert len(space(scenario, scenario.search)) == 2
