"""Measured runs from whatever a user has: ``RUNS.csv``, or result files of ``vllm bench serve`` or guidellm.

Result files say what the client did and saw. What only the server knows (``max_num_seqs``, ``num_gpu_blocks``,
...) has the names of the columns of ``RUNS.csv`` and is given beside them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from simslm.errors import UsageError, nearest
from simslm.runs import guidellm, vllm
from simslm.runs.found import Found
from simslm.runs.table import SETTINGS, MeasuredRun, check_names, make_run, read_runs

BELONG_TO_ONE = ("run",)


def read_measured(paths: Sequence[Path], settings: Mapping[str, str] | None = None) -> list[MeasuredRun]:
    """The measured runs of some files, in their order.

    Args:
        paths: tables (``.csv``), result files (``.json``), or folders of result files.
        settings: texts by column of ``RUNS.csv``: what the files do not say, or what stands in its place.

    Raises:
        UsageError: naming the file, what is wrong or missing, and the remedy.
    """
    settings = settings or {}
    for name in settings:
        if name not in SETTINGS or name in BELONG_TO_ONE:
            known = [column for column in SETTINGS if column not in BELONG_TO_ONE]
            raise UsageError(
                f"--set {name}: no such setting of a run{nearest(name, known)}",
                remedy=f"known: {', '.join(known)}",
            )
    runs = [run for path in paths for file in _files(path) for run in _read(file, settings)]
    check_names(runs)
    return runs


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.json"))
    if not found:
        raise UsageError(
            "holds no result file", where=str(path), remedy="expected .json files, or name a RUNS.csv itself"
        )
    return found


def _read(path: Path, settings: Mapping[str, str]) -> list[MeasuredRun]:
    if path.suffix.lower() != ".json":
        return read_runs(path, settings)
    runs = []
    for result in _results(path):
        for found in _runs_in(result, path):
            cells = {**found.cells, **settings}
            _check_complete(found, cells)
            runs.append(make_run(cells, found.where, path.parent, found.lengths))
    return runs


def _runs_in(result: Any, path: Path) -> list[Found]:
    """The runs of one result, by the tool that its keys give away."""
    for tool in (vllm, guidellm):
        if isinstance(result, dict) and set(result) >= tool.KEYS:
            return tool.runs_in(result, path)
    raise UsageError(
        "is no result of `vllm bench serve --save-result` and no benchmarks.json of guidellm",
        where=str(path),
        remedy="expected the file as the tool wrote it, or a RUNS.csv",
    )


def _check_complete(found: Found, cells: Mapping[str, str]) -> None:
    """Everything that has to be known is, all that is not named at once."""
    missing = [name for name, column in SETTINGS.items() if column.required and not cells.get(name)]
    if missing:
        why = "".join(f"; {found.unknown[name]}" for name in missing if name in found.unknown)
        raise UsageError(
            f"{found.tool} does not say {', '.join(missing)}{why}",
            where=found.where,
            remedy=f"add {' '.join(f'--set {name}=...' for name in missing)}",
        )


def _results(path: Path) -> Iterator[Any]:
    """The JSON values of a file: one, or, as ``--append-result`` leaves them, one after another."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise UsageError("no such file", where=str(path), remedy="check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read as text ({error})", where=str(path)) from None
    decoder, position = json.JSONDecoder(), 0
    try:
        while position < len(text):
            value, position = decoder.raw_decode(text, position)
            yield value
            position += len(text[position:]) - len(text[position:].lstrip())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"is not valid JSON ({error})", where=str(path)) from None
    if not text:
        raise UsageError("the file is empty", where=str(path))
