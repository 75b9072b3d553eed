"""Measured runs from the files of a user: ``RUNS.csv``, or result files of benchmarking clients.

The content of a file says what it is, not its suffix. Result files say what the client did and saw. What only the
server knows (``max_num_seqs``, ``num_gpu_blocks``, ...) has the names of the columns of ``RUNS.csv`` and is given
beside them.

A wrong file, row or benchmark is skipped and named; the others are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simslm.catalog.devices import device_file
from simslm.errors import SimslmError, UsageError, nearest
from simslm.plain import is_section
from simslm.runs import guidellm, vllm
from simslm.runs.client_run import RECORDED, ClientRun
from simslm.runs.table import SETTINGS, MeasuredRun, Skipped, filled, make_run, read_table
from simslm.runs.unread_clients import client_of

BELONG_TO_ONE = ("run",)

SUFFIXES = (".json", ".jsonl")
"""What the names of result files end in, where a folder of them is read."""


@dataclass(frozen=True)
class Measured:
    """Measured runs, and what was left out and why."""

    runs: tuple[MeasuredRun, ...]
    skipped: tuple[Skipped, ...]


def read_measured(
    paths: Sequence[Path],
    settings: Mapping[str, str] | None = None,
    assumed: Mapping[str, str] | None = None,
) -> Measured:
    """The measured runs of some files, in their order.

    Args:
        paths: tables, result files, or folders of result files.
        settings: texts by column of ``RUNS.csv``, in place of what the files say.
        assumed: texts by column, for what they do not say.

    Raises:
        UsageError: a setting is unknown, or no run is left: why.
    """
    settings, assumed = _resolved(settings or {}), _resolved(assumed or {})
    for name in settings:
        if name not in SETTINGS or name in BELONG_TO_ONE:
            known = [column for column in SETTINGS if column not in BELONG_TO_ONE]
            raise UsageError(
                f"--set {name}: no such setting of a run{nearest(name, known)}",
                remedy=f"known: {', '.join(known)}",
            )
    runs: list[MeasuredRun] = []
    skipped: list[Skipped] = []
    places: dict[str, str] = {}
    for file in (file for path in paths for file in _files(path)):
        for found in _read(file, settings, assumed):
            if isinstance(found, Skipped):
                skipped.append(found)
            elif found.run in places:
                why = f"{found.where}: run: {found.run!r} is the name of {places[found.run]} too; give it another"
                skipped.append(Skipped(found.run, why))
            else:
                places[found.run] = found.where
                runs.append(found)
    if not runs:
        raise UsageError(_none_left(skipped))
    return Measured(tuple(runs), tuple(skipped))


def _resolved(settings: Mapping[str, str]) -> dict[str, str]:
    """The same with the file of a device found from here, wherever a run's own file is."""
    device = settings.get("device", "")
    if device.lstrip().startswith("{") or device_file(device) is None:
        return dict(settings)
    return {**settings, "device": str(Path(device).resolve())}


def _none_left(skipped: Sequence[Skipped]) -> str:
    """Why no run is left: each reason once."""
    reasons = list(dict.fromkeys(each.reason for each in skipped))
    if len(reasons) == 1:
        return reasons[0]
    more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return f"not one of {len(skipped)} runs can be used: {'; '.join(reasons[:3])}{more}"


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if not found:
        raise UsageError(
            "holds no result file",
            where=str(path),
            remedy=f"expected {' or '.join(SUFFIXES)} files, or name a RUNS.csv itself",
        )
    return found


def _read(
    path: Path, settings: Mapping[str, str], assumed: Mapping[str, str]
) -> Iterator[MeasuredRun | Skipped]:
    """The runs of a file, and why others are skipped; a file that is wrong as a whole is skipped itself."""
    try:
        text = _text(path)
        if not _is_json(text, path):
            runs, skipped = read_table(path, settings, assumed)
            yield from (*runs, *skipped)
            return
        results = list(_results(text, path))
    except SimslmError as error:
        yield Skipped(path.name, str(error))
        return
    named: dict[str, int] = {}
    for result in results:
        try:
            told = _runs_in(result, path)
        except SimslmError as error:
            yield Skipped(path.name, str(error))
            continue
        for found in told:
            yield found if isinstance(found, Skipped) else _run(found, path, settings, assumed, named)


def _run(
    found: ClientRun,
    path: Path,
    settings: Mapping[str, str],
    assumed: Mapping[str, str],
    named: dict[str, int],
) -> MeasuredRun | Skipped:
    """A run as a client saw it, completed by the settings; runs of one file get different names."""
    name = found.cells["run"]
    named[name] = named.get(name, 0) + 1
    if named[name] > 1:
        name = f"{name} ({named[name]})"
    cells = filled({**found.cells, "run": name}, assumed) | dict(settings)
    notes = list(found.notes)
    if (said := found.unknown.get("model")) and not found.cells.get("model") and cells.get("model"):
        notes.append(f"{said}: taken to be {cells['model']}, as the command says")
    try:
        _check_complete(found, cells)
        arrival_s = found.arrival_s if cells["arrivals"] == RECORDED else None
        run = make_run(cells, found.where, path.parent, found.lengths, arrival_s, found.window, notes)
        return replace(run, lengths_assumed=found.lengths is None and run.lengths_file is None)
    except SimslmError as error:
        return Skipped(name, str(error))


def _runs_in(result: Any, path: Path) -> Sequence[ClientRun | Skipped]:
    """The runs of one result, by the tool that its keys give away."""
    for tool in (vllm, guidellm):
        if is_section(result) and set(result) >= tool.KEYS:
            return tool.runs_in(result, path)
    if client := client_of(result):
        raise UsageError(
            f"is a result of {client}, which is not read",
            where=str(path),
            remedy="write its figures into a RUNS.csv (docs/measured-runs.md)",
        )
    raise UsageError(
        "is no result of `vllm bench serve --save-result` or sglang.bench_serving, and no benchmarks.json of guidellm",
        where=str(path),
        remedy="expected the file as the tool wrote it, or a RUNS.csv",
    )


def _check_complete(found: ClientRun, cells: Mapping[str, str]) -> None:
    """Refuses a run that lacks a required column; names all that are missing at once."""
    missing = [name for name, column in SETTINGS.items() if column.required and not cells.get(name)]
    if not cells.get("engine") and not cells.get("max_num_batched_tokens"):
        missing.append("max_num_batched_tokens")
    if missing:
        why = "".join(f"; {found.unknown[name]}" for name in missing if found.unknown.get(name))
        raise UsageError(
            f"{found.tool} does not say {', '.join(missing)}{why}",
            where=found.where,
            remedy=f"add {' '.join(f'--set {name}=...' for name in missing)}",
        )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError("no such file", where=str(path), remedy="check the path") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"cannot be read as text in UTF-8 ({error})", where=str(path)) from None
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", where=str(path)) from None


def _is_json(text: str, path: Path) -> bool:
    """By content; by the suffix where the content is neither JSON nor a table."""
    return text.lstrip()[:1] in ("{", "[") or path.suffix.lower() in SUFFIXES


def _results(text: str, path: Path) -> Iterator[Any]:
    """The JSON values of a file: one, a list of them, or one after another, as ``--append-result`` and SGLang's client
    leave them."""
    text = text.strip()
    if not text:
        raise UsageError("the file is empty", where=str(path))
    decoder, position = json.JSONDecoder(), 0
    try:
        while position < len(text):
            value, position = decoder.raw_decode(text, position)
            yield from value if isinstance(value, list) and value else [value]
            position += len(text[position:]) - len(text[position:].lstrip())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"is not valid JSON ({error})", where=str(path)) from None
