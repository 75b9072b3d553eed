"""Programs from a file: JSON lines with a program each, or a YAML or JSON list of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from simslm.errors import ScenarioError, nearest
from simslm.scenario.programs import Graph, GraphRequest
from simslm.workload.calls import Call, Text

REMEDY = (
    "a program is {texts: {NAME: TOKENS}, requests: [{id, prompt_tokens, output_tokens, text, extends, reads, after, "
    "delay_s, reasoning_tokens}, …]}; see docs/sessions.md"
)


def read_graphs(path: Path) -> list[list[Call]]:
    """The programs of a file, each with its requests in an order in which they can be sent.

    Raises:
        ScenarioError: naming file and line, what was expected, and the remedy.
    """
    if not path.is_file():
        raise ScenarioError(
            "is a folder" if path.is_dir() else "no such file",
            where=str(path),
            remedy="a path is relative to the scenario's file",
        )
    programs = [_program(place, value) for place, value in _programs(path)]
    if not programs:
        raise ScenarioError("holds no program", where=str(path), remedy=REMEDY)
    return programs


def _programs(path: Path) -> Iterator[tuple[str, Any]]:
    """Each program, and where it stands."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ScenarioError("cannot be read as text in UTF-8", where=str(path), remedy=REMEDY) from None
    if path.suffix == ".jsonl":
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield f"{path}:{number}", _json(line, f"{path}:{number}")
        return
    if path.suffix not in (".json", ".yaml", ".yml"):
        raise ScenarioError("programs are read from .jsonl, .json, .yaml or .yml", where=str(path))
    yield from _listed(path, text)


def _json(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ScenarioError(f"not valid JSON ({error})", where=place, remedy=REMEDY) from None


def _listed(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """The programs of a YAML or JSON list, with their lines."""
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedSeq
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        found = YAML(typ="rt").load(text)
    except (YAMLError, ValueError, RecursionError) as error:
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ScenarioError("not valid YAML", where=place, remedy=REMEDY) from None
    if not isinstance(found, CommentedSeq):
        raise ScenarioError("expected a list of programs", where=str(path), remedy=REMEDY)
    for number, program in enumerate(found):
        yield f"{path}:{found.lc.item(number)[0] + 1}", program


def _program(place: str, value: Any) -> list[Call]:
    try:
        graph = Graph.model_validate_json(json.dumps(value), strict=True)
    except (TypeError, ValueError) as error:
        fault = error.errors(include_url=False)[0] if isinstance(error, ValidationError) else None
        if fault is None:
            raise ScenarioError(f"no program ({error})", where=place, remedy=REMEDY) from None
        keys = ".".join(map(str, fault["loc"]))
        raise ScenarioError(f"{keys}: {_said(fault)}", where=place, remedy=REMEDY) from None
    try:
        return _calls(graph)
    except ValueError as error:
        raise ScenarioError(str(error), where=place, remedy=REMEDY) from None


def _said(fault: Any) -> str:
    if fault["type"] == "extra_forbidden":
        known = [*GraphRequest.model_fields, *Graph.model_fields]
        return f"unknown key{nearest(str(fault['loc'][-1]), known)}"
    text = str(fault["msg"])
    return text[0].lower() + text[1:]


def _calls(graph: Graph) -> list[Call]:
    """The requests in an order in which each stands behind those it depends on, otherwise as in the file.

    Raises:
        ValueError: a name is not known or is used twice, a prompt is empty, or requests wait for each other.
    """
    by_id = {request.id: request for request in graph.requests}
    if len(by_id) < len(graph.requests):
        twice = next(each.id for i, each in enumerate(graph.requests) if each.id in _ids(graph.requests[:i]))
        raise ValueError(f"two requests are called {twice!r}")
    for request in graph.requests:
        _check(request, by_id, graph)
    order = _ordered(graph)
    number = {name: i for i, name in enumerate(order)}
    return [_call(by_id[name], number, graph) for name in order]


def _ids(requests: tuple[GraphRequest, ...]) -> list[str]:
    return [request.id for request in requests]


def _parents(request: GraphRequest) -> list[str]:
    extended = () if request.extends is None else (request.extends,)
    return [*extended, *request.reads, *request.after]


def _check(request: GraphRequest, by_id: dict[str, GraphRequest], graph: Graph) -> None:
    for parent in _parents(request):
        if parent not in by_id:
            raise ValueError(f"{request.id}: no request {parent!r}{nearest(parent, list(by_id))}")
    if request.text is not None and request.text not in graph.texts:
        raise ValueError(f"{request.id}: no text {request.text!r}{nearest(request.text, list(graph.texts))}")
    if not request.prompt_tokens and request.text is None and not (request.extends or request.reads):
        raise ValueError(f"{request.id}: its prompt is empty")


def _ordered(graph: Graph) -> list[str]:
    """The requests' names, parents first (Kahn's algorithm, the first in the file that can go goes)."""
    waits = {request.id: len(set(_parents(request))) for request in graph.requests}
    children: dict[str, list[str]] = {request.id: [] for request in graph.requests}
    for request in graph.requests:
        for parent in dict.fromkeys(_parents(request)):
            children[parent].append(request.id)
    order = [name for name, count in waits.items() if not count]
    for name in order:
        for child in children[name]:
            waits[child] -= 1
            if not waits[child]:
                order.append(child)
    if len(order) < len(waits):
        stuck = next(name for name in waits if name not in set(order))
        raise ValueError(f"{stuck}: is never sent, as requests it depends on wait for each other")
    return order


def _call(request: GraphRequest, number: dict[str, int], graph: Graph) -> Call:
    text = None if request.text is None else Text(("text", request.text), graph.texts[request.text])
    return Call(
        request.prompt_tokens,
        request.output_tokens,
        text=text,
        extends=None if request.extends is None else number[request.extends],
        reads=[number[name] for name in request.reads],
        after=[number[name] for name in request.after],
        delay_s=request.delay_s,
        reasoning=request.reasoning_tokens,
    )
