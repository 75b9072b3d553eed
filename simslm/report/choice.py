"""What a search says to choose, in words: for the screen and for its page, from the contents of a ``frontier.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from simslm.report.tradeoff import Scale, scale
from simslm.report.wording import count, share
from simslm.units import number

NAMED = 3
"""Points like another one that are named; of more, only the number is given."""

LOST = {"rejected_share": "rejected", "failed_share": "failed", "unfinished_share": "unfinished"}

FATE = {"rejected": "are rejected", "failed": "fail", "unfinished": "do not finish"}

SIGNS = {"<=": "≤", ">=": "≥"}

SYMMETRIC = 0.1
"""How much longer one arm of an interval may be for it to be written with ±."""


def labels(paths: Sequence[str]) -> list[str]:
    """Short names of parameters: the last words of their paths that tell them apart."""
    found = []
    for path in paths:
        words = path.split(".")
        for length in range(1, len(words) + 1):
            short = ".".join(words[-length:])
            if sum(other == short or other.endswith(f".{short}") for other in paths) == 1:
                break
        found.append(short)
    return found


def text(value: Any) -> str:
    """A parameter's value as it is written."""
    return value if isinstance(value, str) else json.dumps(value)


def varying(found: Mapping[str, Any]) -> list[str]:
    """The keys of a search that have more than one value; all of them where none has."""
    space = found["space"]
    return [path for path, values in space.items() if isinstance(values, dict) or len(values) > 1] or list(
        space
    )


def at_capacity(point: Mapping[str, Any]) -> str:
    """At which capacity the command of a point simulates it, where other seeds have others; else empty."""
    first, *others = point.get("runs") or [{}]
    own = (first.get("capacity") or {}).get("value")
    if own is None or all((run.get("capacity") or {}).get("value") == own for run in others):
        return ""
    return f" at {number(own)}, its capacity under seed {first['seed']}"


def label(found: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    """``max_num_seqs 128, max_num_batched_tokens 512``."""
    paths = varying(found)
    return ", ".join(
        f"{name} {text(parameters[path])}" for name, path in zip(labels(paths), paths, strict=True)
    )


def scales(found: Mapping[str, Any], known: Mapping[str, Sequence[float | None]]) -> dict[str, Scale]:
    """How each objective is shown, for some of its values by path."""
    of = (found["capacity"] or {}).get("of", "")
    return {path: scale(path, known.get(path, ()), of) for path in found["objectives"]}


def of_points(found: Mapping[str, Any]) -> dict[str, list[float | None]]:
    """The values of each objective at the points of the frontier."""
    return {
        path: [point["objectives"][path]["value"] for point in found["points"]]
        for path in found["objectives"]
    }


def estimated(scale: Scale, estimate: Mapping[str, Any]) -> str:
    """``20.3 ± 1.6``; both ends where they are not equally far; ``none`` where too many requests are missed."""
    value, interval = estimate["value"], estimate["interval"]
    shown = scale.show(value)
    if interval is None or value is None or interval[0] == interval[1]:
        return shown
    below, above = value - interval[0], interval[1] - value
    if abs(above - below) <= SYMMETRIC * max(above, below):
        return f"{shown} ± {scale.show((below + above) / 2)}"
    return f"{shown} ({scale.show(interval[0])} to {scale.show(interval[1])})"


def lost(point: Mapping[str, Any]) -> dict[str, str]:
    """The share of its requests that are rejected, and that fail; unfinished ones only where there are any."""
    shares = point["requests"]
    return {name: share(shares[key]) for key, name in LOST.items() if name != "unfinished" or shares[key]}


def bound(each: Mapping[str, Any]) -> str:
    """A constraint in words: ``SLO attainment ≥ 90 %``."""
    how = scale(each["path"], [each["bound"]])
    return f"{how.name} {SIGNS[each['sign']]} {how.show(each['bound'])} {how.unit.name}".rstrip()


def constraints(found: Mapping[str, Any]) -> str:
    """All of them, in one phrase."""
    return _listed([bound(each) for each in found["bounds"]])


def closest(each: Mapping[str, Any], of: Mapping[str, Any]) -> str:
    """How near points come to a constraint that they break: ``55 %``.

    Args:
        each: what is said of the constraint in ``violated``.
        of: the constraint, in ``bounds``.
    """
    if each["closest"] is None:
        return "none has a finite value, because requests are missed"
    how = scale(of["path"], [of["bound"]])
    return f"the closest has {how.show(each['closest'])} {how.unit.name}".rstrip()


def headline(found: Mapping[str, Any]) -> str:
    """``Choose max_num_seqs 128, max_num_batched_tokens 512: 20.3 ± 1.6 requests/s.``"""
    best = found["points"][0]
    how = scales(found, of_points(found))[found["deciding"]]
    figure = estimated(how, best["objectives"][found["deciding"]])
    return f"Choose {label(found, best['parameters'])}: {figure} {how.unit.name}".rstrip() + "."


def reason(found: Mapping[str, Any]) -> str:
    """Why that one, and what it turns away."""
    path = found["deciding"]
    how, number_of = scales(found, of_points(found))[path], found["counts"]["feasible"]
    name = how.name if how.name[1:2].isupper() else how.name[:1].lower() + how.name[1:]
    most, more = ("highest", "more") if found["objectives"][path] == "max" else ("lowest", "less")
    kept = f" that keep{'s' if number_of == 1 else ''} {constraints(found)}" if found["bounds"] else ""
    points = f"{count(number_of)} point{'' if number_of == 1 else 's'}{kept}"
    if found["topmost"]:
        margin = found["test"]["margin"]
        small = f"; differences of up to {number(100 * margin)} % do not count" if margin else ""
        sentence = f"It has the {most} {name} of the {points}{small}."
    else:
        sentence = (
            f"Of the {points} it has the {most} {name} among those that no other beats; a point with {more} of it "
            "loses more elsewhere."
        )
    fates = [
        f"{value[:1].upper()}{value[1:]} of its requests {FATE[status]}."
        for status, value in lost(found["points"][0]).items()
        if value != "0 %"
    ]
    return " ".join([sentence, *fates])


def sames(found: Mapping[str, Any], point: Mapping[str, Any]) -> str:
    """``max_num_seqs 64, 128 and 256 are the same.``; empty where a point is like no other."""
    others = point["same"]
    if not others:
        return ""
    like = (
        "are the same"
        if all(each["equal"] for each in others)
        else f"differ by at most {number(100 * found['test']['margin'])} % in every objective"
    )
    points = [point["parameters"], *(each["parameters"] for each in others)]
    paths = varying(found)
    values = {path: list(dict.fromkeys(text(each[path]) for each in points)) for path in paths}
    if prod(map(len, values.values())) == len(points):
        apart = [path for path in paths if len(values[path]) > 1]
        names = dict(zip(paths, labels(paths), strict=True))
        first, *more = [f"{names[path]} {_listed(values[path])}" for path in apart]
        fixed = [f"{names[path]} {values[path][0]}" for path in paths if path not in apart]
        beside = [*more, *fixed]
        return f"{first}{f', with {_listed(beside)},' if beside else ''} {like}."
    named = [label(found, each) for each in points]
    return f"{_listed(named, '; ')} {like}."


def _listed(names: Sequence[str], divider: str = ", ") -> str:
    """``a, b and c``; of more than a few, how many more."""
    if len(names) > NAMED + 1:
        return f"{divider.join(names[:NAMED])} and {count(len(names) - NAMED)} more"
    return f"{divider.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def seeds(found: Mapping[str, Any]) -> str:
    """What ± holds; empty where there is no interval."""
    test = found["test"]
    if test["replications"] == 1:
        return "One seed: no interval is known."
    confidence = number(100 * test["confidence"])
    parts = []
    if any(point["seedless"] for point in found["points"]):
        why = "Seeds do not change a replay" if test["recorded"] else "Seeds change nothing here"
        some = "" if all(point["seedless"] for point in found["points"]) else " at some of these points"
        parts.append(
            f"{why}{some} (a second one gave the same to the last bit), so no more were run. ±: the 95 % interval "
            "from the run itself, cut into sections, where it is long enough for one."
        )
    if not all(point["seedless"] for point in found["points"]):
        parts.append(f"±: the {confidence} % interval of the mean over {test['replications']} seeds.")
    return " ".join(parts)
