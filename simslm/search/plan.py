"""How many devices, of which kind and set up how, serve a traffic within its SLO: a question for a purchase.

For each kind of device, and a few ways to set it up, the highest rate that one of them serves is found. The number of
devices that follows is then simulated, all of them behind the scenario's router at the wanted rate, and corrected
until it is the smallest found that meets the SLO.

A run that is short beside the time a request takes shows no overload, and too few devices would seem enough: see
:mod:`simslm.search.run_length`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf
from pathlib import Path
from statistics import fmean
from typing import Any

from simslm.api import Found, observed, prepare
from simslm.catalog.devices import device_named, device_names, load_device
from simslm.comparison.delta import CONFIDENCE
from simslm.comparison.student import interval
from simslm.errors import InfeasibleError, ScenarioError, SimslmError, UsageError
from simslm.metrics.misses import CountMisses
from simslm.metrics.misses import figures as missed
from simslm.scenario.schema import Scenario
from simslm.scenario.search import Range, Search
from simslm.search.capacity import HIGHEST, LOWEST, CapacityRange, highest
from simslm.search.commands import serve_commands, simulate_command
from simslm.search.objectives import LOST, allowed_rejections, figure, finite, shares
from simslm.search.run_length import Seen, attained, simulate_long_enough
from simslm.search.space import Parameters, infeasible_reason, overridden, plain, space
from simslm.traces.files import list_traces, read_trace

RATE = "workload.arrivals.rate_rps"
SETUPS: Mapping[str, Sequence[Any]] = {
    "deployment.replicas_per_device": (1, 2, 4),
    "deployment.engine.max_num_seqs": (64, 256),
}
"""How a device may be set up, where the scenario's search states no space."""

FEWEST_REQUESTS = 1000
"""Fewest requests of a simulation, where the workload states a duration instead."""

MOST_DEVICES = 4096
"""The largest ``num_devices`` of a scenario."""

SEEDS = 3
"""Seeds under which one device's capacity is found, and all devices meet the SLO: the scenario's and the next."""

HEADROOM = 2.0
"""Times the wanted rate up to which headroom is looked for."""

TOLERANCE, HEADROOM_TOLERANCE = 0.02, 0.05
"""Relative gap between a rate that meets the SLO and one that misses it, of one device and of all."""

Progress = Callable[[int, int, str], None]
"""Takes setups done, setups in all, and the device under way."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of device, and where its costs come from.

    Attributes:
        device: catalogue name, or that of the scenario's own.
        overrides: what makes the scenario one of it.
    """

    device: str
    overrides: Parameters


def kinds(scenario: Scenario, wanted: Sequence[str], traces: Path) -> list[Kind]:
    """The devices to compare: those wanted, else the scenario's own and each with a trace of its model.

    A wanted device without a trace is taken on its roofline.

    Args:
        scenario: whose model and data type count.
        wanted: names of the catalogue, files of devices, or their fields inline; empty = all that were measured.
        traces: where traces are looked for.

    Raises:
        SimslmError: a device is not in the catalogue, or not described as it must be.
    """
    own = load_device(scenario.device, scenario.base_dir).name
    measured = {device: path for device, path in _measured(scenario, traces) if device != own}
    if not wanted:
        return [Kind(own, {}), *(_on_trace(scenario, *each) for each in measured.items())]
    found = []
    for text in dict.fromkeys(wanted):
        device, spec = device_named(text)
        if device == own:
            found.append(Kind(own, {}))
        elif device in measured:
            found.append(_on_trace(scenario, device, measured[device]))
        else:
            load_device(spec or device)
            found.append(Kind(device, {"device": spec or device, "cost.roofline": {}}))
    return found


def _measured(scenario: Scenario, traces: Path) -> Iterable[tuple[str, Path]]:
    """Devices with a trace of the scenario's model and data type that are known; of several the first by path."""
    model = scenario.model if isinstance(scenario.model, str) else scenario.model.get("name")
    seen = set[str]()
    for trace in list_traces(traces):
        origin = trace.provenance
        if (origin.get("model"), origin.get("dtype")) != (model, scenario.dtype):
            continue
        known = origin["device"] in device_names() or "device_spec" in origin
        if known and origin["device"] not in seen:
            seen.add(origin["device"])
            yield origin["device"], trace.path


def _on_trace(scenario: Scenario, device: str, path: Path) -> Kind:
    place = os.path.relpath(path.resolve(), scenario.base_dir.resolve())
    spec = read_trace(path).provenance.get("device_spec", device)
    return Kind(device, {"device": spec, "cost.trace": place})


@dataclass(frozen=True)
class Planner:
    """Plans for one scenario.

    Attributes:
        scenario: with an SLO and arrivals that have a rate.
        progress: called after every setup of a device.
        again: the arguments of ``simslm simulate`` that give the scenario.
    """

    scenario: Scenario
    progress: Progress | None = None
    again: tuple[str, ...] = ()

    def plans(self, compared: Sequence[Kind], rates_rps: Sequence[float]) -> list[dict[str, Any]]:
        """What each kind of device comes to at each rate, the recommended one first.

        Raises:
            UsageError: a rate is no number above 0.
            SimslmError: a trace cannot be used, or the scenario makes no sense.
        """
        for rate_rps in rates_rps:
            if not 0 < rate_rps < inf:
                raise UsageError(f"a rate is a number above 0, got {rate_rps:g}")
        setups = _setups(self.scenario)
        options = [
            self._options(kind, setups, rates_rps, done * len(setups), len(compared) * len(setups))
            for done, kind in enumerate(compared)
        ]
        return [
            self._plan(rate_rps, setups, list(of_rate))
            for rate_rps, of_rate in zip(rates_rps, zip(*options, strict=True), strict=True)
        ]

    def _plan(
        self, rate_rps: float, setups: Sequence[Parameters], options: Sequence[dict[str, Any]]
    ) -> dict[str, Any]:
        able = [option for option in options if option["feasible"]]
        priced = all(option["usd_per_hour"] is not None for option in able)
        ranked_by = "usd_per_hour" if priced else "devices"
        able.sort(key=lambda option: option[ranked_by])
        slo = self.scenario.slo
        assert slo is not None  # _setups has made sure of it
        return {
            "schema_version": 1,
            "name": self.scenario.name,
            "model": self.scenario.model,
            "rate_rps": rate_rps,
            "slo": slo.model_dump(),
            "setups": [dict(setup) for setup in setups],
            "ranked_by": ranked_by if able else None,
            "recommended": able[0]["device"] if able else None,
            "options": [*able, *(option for option in options if not option["feasible"])],
        }

    def _options(
        self, kind: Kind, setups: Sequence[Parameters], rates_rps: Sequence[float], done: int, total: int
    ) -> list[dict[str, Any]]:
        """One kind of device at each rate; how it is set up, and what one of it serves, is found once."""

        def step(number: int) -> None:
            if self.progress is not None:
                self.progress(done + number, total, kind.device)

        fleet = Fleet(self.scenario, kind)
        base = {"device": kind.device, "feasible": False, "reason": ""}
        try:
            setup, capacities = fleet.best_setup(setups, step)
        except InfeasibleError as error:
            return [base | {"reason": infeasible_reason(error)} for _ in rates_rps]
        found = []
        for rate_rps in rates_rps:
            try:
                option = {"feasible": True} | fleet.option(setup, capacities, rate_rps, self.again)
            except InfeasibleError as error:
                option = {"reason": infeasible_reason(error)}
            found.append(base | option)
        return found


def _setups(scenario: Scenario) -> list[Parameters]:
    """The ways to set up a device: those of the scenario's search, else a few.

    Raises:
        ScenarioError: there is nothing to plan for, or something else varies than how a device is set up.
    """
    deployment = scenario.deployment
    if scenario.slo is None:
        raise ScenarioError(
            "has no slo to meet", where=scenario.name, remedy="state slo, e.g. slo: {ttft_s: 0.5}"
        )
    if getattr(scenario.workload.arrivals, "rate_rps", None) is None:
        raise ScenarioError(
            "a plan needs arrivals with a rate_rps",
            where=scenario.where("workload") or scenario.name,
            remedy="state workload.arrivals: {process: poisson, rate_rps: 1}",
        )
    if deployment.groups is not None or deployment.tensor_parallel_size > 1:
        raise ScenarioError(
            "a plan is for one group of replicas, each on one device",
            where=scenario.where("deployment") or scenario.name,
            remedy="leave out deployment.groups and deployment.tensor_parallel_size",
        )
    if deployment.gateway is not None:
        raise ScenarioError(
            "a plan multiplies what one replica serves, and a gateway answers more for many than for one",
            where=scenario.where("deployment", "gateway"),
            remedy="leave out deployment.gateway, or search over deployment.num_devices",
        )
    stated = scenario.search.space if scenario.search is not None else {}
    for path, values in stated.items():
        own = path.startswith("deployment.") and path != "deployment.num_devices"
        if not own or isinstance(values, Range):
            what = "a range of" if own else "not"
            raise ScenarioError(
                f"search.space: a plan tries lists of values of how a device is set up (deployment), {what} {path}",
                where=scenario.where("search", "space", path),
                remedy="leave it out, or state a list of values",
            )
    values = stated or {path: tuple(values) for path, values in SETUPS.items()}
    asked = Search(space=dict(values), objectives={"capacity.value": "max"})
    shared = _sharing(scenario)
    return list(space(overridden(plain(scenario), shared), asked).grid())


def _sharing(scenario: Scenario) -> Parameters:
    """What lets replicas share a device where the scenario does not say how."""
    return {"deployment.sharing": "mps"} if scenario.deployment.sharing == "none" else {}


@dataclass(frozen=True, slots=True)
class Rate:
    """The highest rate of one device that meets the SLO, and the lowest that was seen to miss it."""

    value: float
    missed: float | None


class Fleet:
    """Devices of one kind, which serve a scenario's traffic at any rate.

    Args:
        scenario: with an SLO and arrivals that have a rate.
        kind: of device.
    """

    def __init__(self, scenario: Scenario, kind: Kind) -> None:
        economics = {"economics": {}} if scenario.economics is None else {}
        self._scenario = scenario
        self._stated = plain(scenario)
        self._base = {**kind.overrides, **economics, **_sharing(scenario)}
        self._found = Found()
        assert scenario.slo is not None  # _setups has made sure of it
        self._wanted = scenario.slo.attainment
        self._rejected = allowed_rejections(scenario)

    def best_setup(
        self, setups: Sequence[Parameters], step: Callable[[int], None]
    ) -> tuple[Parameters, list[float]]:
        """The setup with which one device serves the highest rate, the first of equal ones, and that rate by seed.

        The first rate is bracketed from the scenario's own, all others from the highest so far. Setups are compared
        under the scenario's seed.

        Args:
            setups: to try.
            step: called with the number of setups done.

        Raises:
            InfeasibleError: with none of them a device serves any rate within the SLO.
        """
        start = float(getattr(self._scenario.workload.arrivals, "rate_rps", 1.0))
        where = CapacityRange(start, start * LOWEST, start * HIGHEST, False, TOLERANCE)
        best: tuple[Parameters, float] | None = None
        reasons: dict[str, None] = {}
        for number, setup in enumerate(setups, start=1):
            try:
                # One simulation at the best rate so far tells most setups from a better one, a bracket takes a dozen.
                if best is None or self.attainment(setup, 1, best[1]) >= self._wanted:
                    near = where if best is None else replace(where, start=best[1])
                    rate = self.capacity(setup, 1, near).value
                    if best is None or rate > best[1]:
                        best = setup, rate
            except (InfeasibleError, ScenarioError) as error:
                reasons[infeasible_reason(error).rstrip(".")] = None
            step(number)
        if best is None:
            raise InfeasibleError("; ".join(reasons))
        setup, rate = best
        near = replace(where, start=rate)
        return setup, [rate, *(self.capacity(setup, 1, near, further).value for further in range(1, SEEDS))]

    def capacity(self, setup: Parameters, devices: int, where: CapacityRange, further: int = 0) -> Rate:
        """The highest rate that so many devices serve within the SLO, under the scenario's seed or one ``further`` on.

        Raises:
            InfeasibleError: not even the lowest.
        """
        found = highest(where, lambda rate: self.attainment(setup, devices, rate, further), self._wanted)
        return Rate(found.value, found.missed)

    def option(
        self, setup: Parameters, capacities: Sequence[float], rate_rps: float, again: Sequence[str]
    ) -> dict[str, Any]:
        """The smallest number of devices found that serves a rate, and what that comes to.

        Args:
            setup: of each device.
            capacities: of one, by seed.
            rate_rps: that is to be served.
            again: the arguments of ``simslm simulate`` that give the scenario.

        Raises:
            InfeasibleError: no number of devices near the one that follows from the capacity does.
        """
        capacity = fmean(capacities)
        count = smallest(
            lambda devices: self.attains(setup, devices, rate_rps), ceil(rate_rps / capacity - 1e-9)
        )
        seen, parameters = self.served(setup, count, rate_rps)
        summary = seen.summary
        latencies = {
            path: seen.missed.get(path, figure(summary, path)) for path in ("ttft_s.p99", "tpot_s.p99")
        }
        most = self.capacity(
            setup, count, CapacityRange(rate_rps, rate_rps, HEADROOM * rate_rps, False, HEADROOM_TOLERANCE)
        )
        lost = shares(summary)
        cost, economics, energy = summary["cost"], summary["economics"], summary["energy"]
        usd = economics["usd_per_million_output_tokens"]
        tokens_per_hour = 3600 * summary["throughput"]["output_tokens_per_s"]
        return {
            "devices": count,
            "setup": dict(setup),
            "capacity_rps": {"value": capacity, "interval": interval(capacities, CONFIDENCE), "seeds": SEEDS},
            "attainment": summary["slo"]["attainment"],
            "ttft_p99_s": _bounded(latencies["ttft_s.p99"]),
            "tpot_p99_s": _bounded(latencies["tpot_s.p99"]),
            "lost": {status: lost[f"requests.{status}_share"] for status in LOST},
            "headroom": {
                "value": most.value / rate_rps - 1,
                "missed": None if most.missed is None else most.missed / rate_rps - 1,
            },
            "usd_per_hour": None if usd is None else usd * tokens_per_hour / 1e6,
            "usd_per_million_output_tokens": usd,
            "g_co2_per_million_output_tokens": economics["g_co2_per_million_output_tokens"],
            "j_per_output_token": energy["j_per_output_token"],
            "mean_power_w": energy["mean_power_w"],
            "in_domain_time": summary["coverage"]["in_domain_time"],
            "requests": summary["requests"]["arrived"],
            "source": cost["source"],
            "engine": cost["engine"],
            "assumptions": economics["assumptions"],
            "command": simulate_command(again, parameters),
            "vllm": serve_commands(overridden(self._stated, parameters)),
        }

    def attains(self, setup: Parameters, devices: int, rate_rps: float) -> bool:
        """Whether some devices meet the SLO at some rate under the scenario's seed, and in the mean over the seeds."""
        own = self.attainment(setup, devices, rate_rps)
        if own < self._wanted:
            return False
        others = (self.attainment(setup, devices, rate_rps, further) for further in range(1, SEEDS))
        return fmean((own, *others)) >= self._wanted

    def attainment(self, setup: Parameters, devices: int, rate_rps: float, further: int = 0) -> float:
        """The SLO attainment of some devices that are sent some rate; 0 where they reject too much of it."""
        return attained(self.served(setup, devices, rate_rps, further)[0].summary, self._rejected)

    def served(
        self, setup: Parameters, devices: int, rate_rps: float, further: int = 0
    ) -> tuple[Seen, Parameters]:
        """What comes out when some devices are sent some rate, and what makes the scenario that.

        Where the SLO seems to be met the run is made long enough to tell, see :mod:`simslm.search.run_length`.

        Raises:
            InfeasibleError: that takes too many requests, or the model does not fit.
        """
        stated = self._scenario.workload.num_requests or FEWEST_REQUESTS
        parameters = {
            **self._base,
            **setup,
            "deployment.num_devices": devices,
            RATE: float(rate_rps),
            "workload.num_requests": stated,
            "workload.duration_s": None,
        }
        if further:
            parameters["seed"] = self._scenario.seed + further

        def run(changes: Mapping[str, Any]) -> Seen:
            prepared = prepare(overridden(self._stated, parameters, changes), self._found)
            sink = CountMisses()
            result = observed(prepared, sink=sink)
            return Seen(result.summary, len(prepared.workload), missed(result, sink))

        lasted = simulate_long_enough(overridden(self._stated, parameters), run, self._wanted, self._rejected)
        return lasted.seen, {**parameters, **lasted.changes}


def _bounded(value: float | None) -> float | None:
    """A latency for a file: null where there is none, or where it is infinite because requests were missed."""
    return None if value is None else finite(value)


def smallest(attains: Callable[[int], bool], first: int) -> int:
    """The number of devices from which one fewer misses the SLO, looked for from a first guess.

    Args:
        attains: whether so many devices meet it.
        first: the guess, at least 1.

    Raises:
        InfeasibleError: neither the guess nor a quarter more (at least two more) meets it.
    """
    most = min(first + max(2, ceil(first / 4)), MOST_DEVICES)
    if first > MOST_DEVICES:
        raise InfeasibleError(
            f"it takes {first:,} devices, more than the {MOST_DEVICES:,} that a scenario may have"
        )
    count = first
    while not attains(count):
        count += 1
        if count > most:
            raise InfeasibleError(
                f"{first:,} devices follow from the capacity of one, and {most:,} do not meet the SLO either",
                remedy="longer runs (workload.num_requests) or another router.policy may tell more",
            )
    while count > 1 and count <= first and attains(count - 1):
        count -= 1
    return count


def infeasible(plans: Sequence[Mapping[str, Any]]) -> SimslmError:
    """Why no kind of device will do, from plans without a recommendation."""
    parts = []
    for found in plans:
        reasons = "; ".join(f"{option['device']}: {option['reason']}" for option in found["options"])
        parts.append(f"no device serves {found['rate_rps']:g} requests/s within the SLO: {reasons}")
    return InfeasibleError("; ".join(parts))
