"""What a shell completes: names of the catalogue, figures, and the keys of a scenario with their choices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

BARE = "policy"
"""The key that a policy's name alone stands for."""


def models(incomplete: str) -> list[str]:
    from simslm.catalog.models import model_names

    return [name for name in model_names() if name.startswith(incomplete)]


def devices(incomplete: str) -> list[str]:
    from simslm.catalog.devices import device_names

    return [name for name in device_names() if name.startswith(incomplete)]


def metrics(incomplete: str) -> list[str]:
    """Figures of a summary, each metric and each number of it."""
    from simslm.metrics.definitions import METRICS
    from simslm.metrics.figure_paths import FIGURES

    names = sorted({metric.key for metric in METRICS} | set(FIGURES))
    return [name for name in names if name.startswith(incomplete)]


def settings(incomplete: str) -> list[str]:
    """``path=`` for the keys of a scenario, and ``path=value`` for what such a key may be."""
    from simslm.scenario.schema import Scenario

    path, equals, begun = incomplete.partition("=")
    schema = Scenario.model_json_schema()
    choices = dict(_keys(schema, schema, ""))
    if equals:
        return [f"{path}={value}" for value in choices.get(path, ()) if value.startswith(begun)]
    return [f"{key}=" for key in choices if key.startswith(path)]


def _keys(node: Mapping[str, Any], schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, list[str]]]:
    """Every key below a node of a JSON Schema, by dotted path, with its choices where they are few and known."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for variant in _variants(node, schema):
        for name, inner in variant.get("properties", {}).items():
            found.setdefault(name, []).append(inner)
    for name, nodes in found.items():
        key = f"{path}.{name}" if path else name
        below = [pair for each in nodes for pair in _keys(each, schema, key)]
        choices = [value for each in nodes for value in _choices(each, schema)]
        # A policy may be given by its bare name: ``batching=orca`` for ``batching.policy=orca``.
        choices += [value for name, values in below if name == f"{key}.{BARE}" for value in values]
        yield key, list(dict.fromkeys(choices))
        yield from below


def _variants(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The node itself, or what it refers to, or each of its alternatives."""
    if "$ref" in node:
        yield from _variants(schema["$defs"][node["$ref"].rpartition("/")[2]], schema)
    alternatives = (*node.get("anyOf", ()), *node.get("oneOf", ()), *node.get("allOf", ()))
    for each in alternatives:
        yield from _variants(each, schema)
    if not alternatives and "$ref" not in node:
        yield node


def _choices(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    for variant in _variants(node, schema):
        values = [variant["const"]] if "const" in variant else variant.get("enum", ())
        yield from (str(value) for value in values if value is not None)
        if variant.get("type") == "boolean":
            yield from ("true", "false")
