"""What differs between the manifests of two runs: every key of the scenario, and what it was simulated on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from simslm.plain import is_mapping, is_sequence, section_of

NOT_COMPARED = ("name", "schema_version", "search", "cost.trace")
"""Keys of a scenario that change nothing in a run, and a path, in whose place the content of the trace is compared."""


@dataclass(frozen=True, slots=True)
class Change:
    """One key whose value differs.

    Attributes:
        path: of the key in the scenario, or of what stands beside it in the manifest.
        baseline, value: in the baseline and in the other; None where it is null or not there.
    """

    path: str
    baseline: Any
    value: Any


def changes(baseline: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[Change, ...]:
    """Every difference between two manifests that can change a run, in the order of the scenario."""
    first, second = dict(_settings(baseline)), dict(_settings(other))
    return tuple(
        Change(path, first.get(path), second.get(path))
        for path in dict.fromkeys((*first, *second))
        if first.get(path) != second.get(path)
    )


def _settings(manifest: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The scenario's keys, then the engine and version that answered and the content of what was read."""
    for path, value in _leaves(manifest["scenario"], ""):
        if not any(path == left_out or path.startswith(f"{left_out}.") for left_out in NOT_COMPARED):
            yield path, value
    for i, trace in enumerate(manifest.get("traces") or ()):
        yield f"traces[{i}].content_hash", str(trace.get("content_hash"))[:12]
    for i, file in enumerate(manifest.get("files") or ()):
        yield f"files[{i}].sha256", str(file.get("sha256"))[:12]
    yield "versions.simslm", section_of(manifest, "versions").get("simslm")


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The values below a key, by dotted path; lists of plain values are one value."""
    if is_mapping(value):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    elif is_sequence(value) and any(is_mapping(inner) for inner in value):
        for i, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{i}]")
    else:
        yield path, value
