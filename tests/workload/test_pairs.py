"""Prompts and outputs together: quantiles, correlation, clients' own lengths, and pieces that are the whole."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import spearmanr

from simslm.errors import ScenarioError
from simslm.scenario.workload import Workload
from simslm.workload import arrivals as drawn
from simslm.workload import generate
from simslm.workload.generate import generated_pieces

BASE = {
    "num_requests": 20_000,
    "arrivals": {"process": "poisson", "rate_rps": 8},
    "prompt_tokens": {"dist": "lognormal", "mean": 256, "p95": 768},
    "output_tokens": {"dist": "quantiles", "values": [5, 50, 60, 400]},
}


def requests(seed=0, **changes):
    return generate(Workload.model_validate(BASE | changes), seed, 4096, Path())


def test_quantiles_are_met():
    found = requests().output_tokens
    assert (found.min(), found.max()) == (5, 400)
    assert np.quantile(found, [1 / 3, 2 / 3]) == pytest.approx([50, 60], abs=1)


def test_quantiles_may_have_probabilities_and_repeat():
    lengths = {"dist": "quantiles", "at": [0, 0.5, 0.9, 1], "values": [7, 7, 10, 1000]}
    found = requests(output_tokens=lengths).output_tokens
    assert np.mean(found == 7) == pytest.approx(0.5 + 0.4 / 6, abs=0.01)
    assert np.mean(found > 10) == pytest.approx(0.1, abs=0.01)


def test_quantiles_may_be_cut():
    found = requests(output_tokens=BASE["output_tokens"] | {"min": 55, "max": 100}).output_tokens
    assert (found.min(), found.max()) == (55, 100)
    with pytest.raises(ScenarioError, match="none fall between min"):
        requests(output_tokens=BASE["output_tokens"] | {"min": 500})


@pytest.mark.parametrize("correlation", [-1.0, -0.4, 0.2, 0.9, 1.0])
def test_ranks_are_correlated_as_asked_for_and_prompts_stay(correlation):
    free, found = requests(), requests(correlation=correlation)
    assert spearmanr(found.prompt_tokens, found.output_tokens).statistic == pytest.approx(
        correlation, abs=0.02
    )
    assert np.array_equal(found.prompt_tokens, free.prompt_tokens)
    assert np.quantile(found.output_tokens, [0.1, 0.5, 0.9]) == pytest.approx(
        np.quantile(free.output_tokens, [0.1, 0.5, 0.9]), rel=0.05, abs=1.5
    )


def test_no_correlation_is_that_of_0():
    assert np.array_equal(requests(correlation=0.0).output_tokens, requests().output_tokens)


@pytest.mark.parametrize(
    "lengths",
    [
        {"dist": "listed", "values": [1, 2]},
        {"dist": "mixture", "components": [{"weight": 1, "dist": "fixed", "value": 3}]},
    ],
)
def test_what_has_no_quantiles_cannot_be_correlated(lengths):
    with pytest.raises(ScenarioError, match=r"output_tokens: .* lengths cannot be correlated"):
        requests(output_tokens=lengths, correlation=0.3)


OWN = [
    {"share": 1, "prompt_tokens": {"dist": "fixed", "value": 10}},
    {"share": 3, "output_tokens": {"dist": "fixed", "value": 20}},
]
CLIENTS = {"process": "clients", "rate_rps": 8, "clients": OWN}


def test_clients_have_lengths_of_their_own():
    found = requests(arrivals=CLIENTS)
    first = found.prompt_tokens == 10
    assert first.mean() == pytest.approx(0.25, abs=0.02)
    assert set(found.output_tokens[~first]) == {20}
    assert len(set(found.output_tokens[first])) > 100


def test_lengths_are_needed_only_where_a_client_has_none():
    complete = [{"share": 1, "prompt_tokens": BASE["prompt_tokens"], "output_tokens": BASE["output_tokens"]}]
    arrivals = CLIENTS | {"clients": complete}
    bare = {"num_requests": 10, "arrivals": arrivals}
    assert len(generate(Workload.model_validate(bare), 0, 4096, Path())) == 10
    with pytest.raises(ValidationError, match="prompt_tokens would not be used: every client has its own"):
        Workload.model_validate(bare | {"prompt_tokens": BASE["prompt_tokens"]})
    with pytest.raises(ValidationError, match="output_tokens missing"):
        Workload.model_validate(
            {"num_requests": 10, "arrivals": CLIENTS, "prompt_tokens": BASE["prompt_tokens"]}
        )


MIXTURE = {
    "dist": "mixture",
    "components": [
        {"weight": 1, "dist": "fixed", "value": 3},
        {"weight": 2, "dist": "uniform", "low": 9, "high": 99},
    ],
}
EVERYTHING = {
    "priorities": [{"value": 5, "share": 3}, {"value": -2, "share": 1}],
    "timeout_s": 30.0,
    "cancellations": {"share": 0.25, "mean_after_s": 10.0},
    "prefixes": {"count": 7, "tokens": 100, "share": 0.5},
}


@pytest.mark.parametrize(
    "changes",
    [
        {"correlation": 0.5},
        {"prompt_tokens": MIXTURE, "output_tokens": MIXTURE},
        {"prompt_tokens": {"dist": "listed", "values": [1, 2, 3]}},
        {"arrivals": CLIENTS},
        {"arrivals": CLIENTS, "prompt_tokens": MIXTURE},
        {"num_requests": None, "duration_s": 100.0, "prompt_tokens": MIXTURE},
        {"duration_s": 100.0},
        EVERYTHING,
    ],
)
def test_pieces_are_the_whole(changes, monkeypatch):
    whole = requests(**{"num_requests": 3000} | changes)
    monkeypatch.setattr(drawn, "PIECE", 101)
    workload = Workload.model_validate(BASE | {"num_requests": 3000} | changes)
    pieces = list(generated_pieces(workload, 0, 4096, Path()))
    assert max(map(len, pieces)) <= 101
    assert len(pieces) > 2
    for name in ("arrival_s", "prompt_tokens", "output_tokens", "max_tokens", "priority", "patience_s"):
        if getattr(whole, name) is not None:
            assert np.array_equal(
                getattr(whole, name), np.concatenate([getattr(piece, name) for piece in pieces])
            )
    if whole.units is not None:
        assert whole.units == [unit for piece in pieces for unit in piece.units]
