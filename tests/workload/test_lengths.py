"""Length distributions: what they were asked for, whole tokens, bounds, and pairs that cannot be."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from pydantic import TypeAdapter, ValidationError

from simslm.errors import ScenarioError
from simslm.scenario.lengths import Gamma, Lengths, Lognormal, Weibull
from simslm.workload.fit import (
    gamma_parameters,
    gamma_ratio,
    lognormal_parameters,
    weibull_parameters,
    weibull_ratio,
)
from simslm.workload.lengths import draw_lengths
from simslm.workload.streams import stream

COUNT = 200_000


def model(given):
    return TypeAdapter(Lengths).validate_python(given)


def draw(given, count=COUNT, seed=0, base_dir=Path()):
    return draw_lengths(model(given), count, stream(seed, "prompt_tokens"), base_dir)


@pytest.mark.slow
@pytest.mark.parametrize("dist", ["lognormal", "gamma", "weibull"])
@pytest.mark.parametrize("ratio", [1.05, 1.5, 2.5, 3.0, 3.6])
def test_mean_and_p95_are_hit(dist, ratio):
    lengths = draw({"dist": dist, "mean": 400, "p95": 400 * ratio})
    assert lengths.mean() == pytest.approx(400, rel=0.015)
    assert np.percentile(lengths, 95) == pytest.approx(400 * ratio, rel=0.02)


def test_own_parameters_are_taken_as_they_are():
    assert np.median(draw({"dist": "lognormal", "mu": 6, "sigma": 0.5})) == pytest.approx(
        math.exp(6), rel=0.01
    )
    assert draw({"dist": "gamma", "shape": 4, "scale": 50}).var() == pytest.approx(4 * 50**2, rel=0.02)
    weibull = draw({"dist": "weibull", "shape": 2, "scale": 100})
    assert np.mean(weibull <= 100) == pytest.approx(1 - math.exp(-1), abs=0.01)
    assert set(draw({"dist": "lognormal", "mu": math.log(100), "sigma": 0})) == {100}


def test_the_smaller_sigma_is_taken():
    mu, sigma = lognormal_parameters(256, 768)
    z = 1.6448536269514722
    other = z + math.sqrt(z**2 - 2 * math.log(3))
    assert sigma == pytest.approx(z - math.sqrt(z**2 - 2 * math.log(3)))
    assert sigma < other
    assert math.exp(mu + sigma**2 / 2) == pytest.approx(256)
    assert math.exp(mu + z * sigma) == pytest.approx(768)


@settings(max_examples=60, deadline=None)
@given(st.floats(1, 1e5), st.floats(0, 1))
def test_solved_parameters_reproduce_the_pair(mean, position):
    for family, solve, p95_of in (
        (Lognormal, lognormal_parameters, lambda mu, sigma: math.exp(mu + 1.6448536269514722 * sigma)),
        (Gamma, gamma_parameters, lambda shape, scale: gamma_ratio(shape) * shape * scale),
        (Weibull, weibull_parameters, lambda k, scale: weibull_ratio(k) * math.gamma(1 + 1 / k) * scale),
    ):
        ratio = 1.001 + position * (family.largest_p95_over_mean - 1.001)
        assert p95_of(*solve(mean, ratio * mean)) == pytest.approx(ratio * mean, rel=1e-6)


def test_the_largest_ratios_are_the_formulas_own():
    shapes = np.exp(np.linspace(-5, 2, 20_000))
    assert Lognormal.largest_p95_over_mean == pytest.approx(math.exp(1.6448536269514722**2 / 2), abs=1e-3)
    for family, ratio in ((Gamma, gamma_ratio), (Weibull, weibull_ratio)):
        peak = max(ratio(shape) for shape in shapes)
        assert 0 < peak - family.largest_p95_over_mean < 1e-3


@pytest.mark.parametrize("solve", [lognormal_parameters, gamma_parameters, weibull_parameters])
@pytest.mark.parametrize("p95", [100, 99, 700])
def test_the_solvers_refuse_an_impossible_pair(solve, p95):
    with pytest.raises(ValueError, match="with mean 100"):
        solve(100, p95)


@pytest.mark.parametrize("dist", ["lognormal", "gamma", "weibull"])
def test_an_impossible_pair_is_refused_with_its_reason(dist):
    with pytest.raises(ValidationError, match="p95 can be at most"):
        model({"dist": dist, "mean": 256, "p95": 1700})
    with pytest.raises(ValidationError, match="must lie above the mean"):
        model({"dist": dist, "mean": 256, "p95": 200})


@pytest.mark.parametrize(
    "given",
    [
        {"dist": "lognormal"},
        {"dist": "lognormal", "mean": 5},
        {"dist": "lognormal", "mean": 5, "sigma": 1},
        {"dist": "lognormal", "mean": 5, "p95": 9, "mu": 1, "sigma": 1},
        {"dist": "gamma", "shape": 2},
        {"dist": "uniform", "low": 5, "high": 4},
        {"dist": "gamma", "shape": 2, "scale": 3, "min": 9, "max": 8},
        {"dist": "fixed", "value": 0},
        {"dist": "fixed", "value": 1.5},
        {"dist": "lognormal", "mean": float("inf"), "p95": 9},
        {"dist": "mixture", "components": []},
        {"dist": "mixture", "components": [{"dist": "fixed", "value": 3}]},
        {"dist": "mixture", "components": [{"dist": "fixed", "value": 3, "weight": 0}]},
    ],
)
def test_incomplete_or_contradictory_parameters_are_refused(given):
    with pytest.raises(ValidationError):
        model(given)


def test_fixed_and_uniform():
    assert set(draw({"dist": "fixed", "value": 128}, 10)) == {128}
    uniform = draw({"dist": "uniform", "low": 3, "high": 6})
    assert np.bincount(uniform)[3:] / COUNT == pytest.approx([0.25] * 4, abs=0.01)


def test_bounds_condition_and_gather_no_mass():
    given = {"dist": "lognormal", "mean": 256, "p95": 768}
    free, cut = draw(given), draw(given | {"min": 100, "max": 300})
    inside = free[(free >= 100) & (free <= 300)]
    assert (cut.min(), cut.max()) == (100, 300)
    assert cut.mean() == pytest.approx(inside.mean(), rel=0.01)
    assert np.mean(cut == 300) == pytest.approx(np.mean(inside == 300), abs=0.002)


def test_bounds_that_leave_nothing_are_refused():
    with pytest.raises(ScenarioError, match=r"none fall between min \(100000\) and max \(None\)"):
        draw({"dist": "lognormal", "mean": 2, "p95": 3, "min": 100_000}, 10)


def test_a_mixture_keeps_its_weights_and_its_components():
    components = [
        {"dist": "fixed", "value": 7, "weight": 1},
        {"dist": "uniform", "low": 100, "high": 199, "weight": 2},
        {"dist": "gamma", "mean": 1000, "p95": 1500, "min": 500, "weight": 1},
    ]
    drawn = draw({"dist": "mixture", "components": components})
    assert np.mean(drawn == 7) == pytest.approx(0.25, abs=0.01)
    assert np.mean((drawn >= 100) & (drawn < 200)) == pytest.approx(0.5, abs=0.01)
    assert np.mean(drawn >= 500) == pytest.approx(0.25, abs=0.01)


def test_an_empirical_distribution_draws_from_its_column(tmp_path):
    (tmp_path / "lengths.csv").write_text("name,tokens\na,5\nb,5\nc,20\nd,0\ne,400\n")
    given = {"dist": "empirical", "file": "lengths.csv", "column": "tokens"}
    drawn = draw(given, base_dir=tmp_path)
    found, counts = np.unique(drawn, return_counts=True)
    assert found.tolist() == [5, 20, 400]
    assert counts / COUNT == pytest.approx([0.5, 0.25, 0.25], abs=0.01)
    assert set(draw(given | {"max": 100}, base_dir=tmp_path)) == {5, 20}
    parquet.write_table(pa.table({"tokens": [5, 5, 20, 0, 400]}), tmp_path / "lengths.parquet")
    assert np.array_equal(drawn, draw(given | {"file": "lengths.parquet"}, base_dir=tmp_path))


@pytest.mark.parametrize(
    ("content", "column", "message"),
    [
        ("tokens\n5\nx\n", "tokens", "lengths.csv:3: tokens: expected a whole number of tokens, 0 or more"),
        ("tokens\n5\n", "token", "lengths.csv:1: the header has no column token"),
        ("tokens\n0\n", "tokens", "has no lengths of at least 1"),
    ],
)
def test_a_column_that_cannot_be_used_is_one_clear_error(content, column, message, tmp_path):
    (tmp_path / "lengths.csv").write_text(content)
    with pytest.raises(ScenarioError, match=message):
        draw({"dist": "empirical", "file": "lengths.csv", "column": column}, base_dir=tmp_path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"other": [1]}, "has no column 'tokens' of whole numbers"),
        ({"tokens": [1.5]}, "has no column 'tokens' of whole numbers"),
        ({"tokens": [1, None]}, "column 'tokens' is empty in 1 rows"),
        ({"tokens": [1, -1]}, "expected a whole number of tokens"),
    ],
)
def test_a_parquet_column_that_cannot_be_used_is_one_clear_error(columns, message, tmp_path):
    parquet.write_table(pa.table(columns), tmp_path / "lengths.parquet")
    with pytest.raises(ScenarioError, match=message):
        draw({"dist": "empirical", "file": "lengths.parquet", "column": "tokens"}, base_dir=tmp_path)


def test_a_file_that_is_no_parquet_is_one_clear_error(tmp_path):
    (tmp_path / "lengths.parquet").write_text("no")
    with pytest.raises(ScenarioError, match="cannot be read as Parquet"):
        draw({"dist": "empirical", "file": "lengths.parquet", "column": "tokens"}, base_dir=tmp_path)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["lognormal", "gamma", "weibull"]),
    st.floats(2, 5000),
    st.floats(1.05, 3.8),
    st.floats(0, 1),
    st.integers(1, 10_000),
)
def test_lengths_are_whole_and_within_bounds(dist, mean, ratio, below, above):
    low, high = max(1, round(below * mean)), round(mean) + above
    drawn = draw({"dist": dist, "mean": mean, "p95": mean * ratio, "min": low, "max": high}, 200)
    assert drawn.dtype == np.int64
    assert low <= drawn.min() <= drawn.max() <= high


def test_listed_lengths_come_in_their_order_and_again():
    assert draw({"dist": "listed", "values": [7, 3, 5]}, count=7).tolist() == [7, 3, 5, 7, 3, 5, 7]
    assert draw({"dist": "listed", "values": [7, 3, 5]}, count=2).tolist() == [7, 3]


@pytest.mark.parametrize("values", [[], [0], [1.5]])
def test_listed_lengths_are_whole_and_at_least_one(values):
    with pytest.raises(ValidationError):
        model({"dist": "listed", "values": values})
