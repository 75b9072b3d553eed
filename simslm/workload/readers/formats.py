"""The formats that traces come in, and which of them a file has."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simslm.errors import ScenarioError, nearest
from simslm.workload.readers import (
    azure,
    burstgpt,
    llmservingsim,
    mooncake,
    parquet,
    plain,
    ragpulse,
    splitwise,
    vidur,
)
from simslm.workload.readers.recording import Recording, gathered
from simslm.workload.readers.table import check_file, first_line, opened_text

Read = Callable[[Path], Iterator[Recording]]
_MOST_HEAD_BYTES = 1 << 24
_LEAST_CSV_BYTES = len("0,1,1\n")
_LEAST_JSON_BYTES = len('{"arrival_s":0,"prompt_tokens":1,"output_tokens":1}\n')


@dataclass(frozen=True, slots=True)
class Format:
    """A file format.

    Attributes:
        name: as ``replay.format`` names it.
        what: it holds, and where it is from.
        columns: a file of this format has all of these.
        read: from a file to its requests, in pieces.
        fits: whether a file's first row, by column, is of this format; where formats have the same columns.
    """

    name: str
    what: str
    columns: Collection[str]
    read: Read
    fits: Callable[[dict[str, Any]], bool] = lambda _row: True


_TEXT = (
    Format(
        "azure-2025",
        "Azure LMM inference, with image counts (ModServe, SoCC 2025)",
        azure.MULTIMODAL,
        azure.read_multimodal,
    ),
    Format(
        "azure-2024",
        "Azure LLM inference, a week (DynamoLLM, HPCA 2025)",
        azure.FIELDS,
        azure.read,
        azure.zoned,
    ),
    Format("azure-2023", "Azure LLM inference, an hour (Splitwise, ISCA 2024)", azure.FIELDS, azure.read),
    Format("burstgpt", "BurstGPT 1 to 3 (arXiv:2401.17644)", burstgpt.FIELDS, burstgpt.read),
    Format("splitwise", "splitwise-sim's own (ISCA 2024)", splitwise.FIELDS, splitwise.read),
    Format("vidur", "Vidur's processed traces (MLSys 2024)", vidur.FIELDS, vidur.read),
    Format("vidur-lengths", "Vidur's lengths without arrivals", vidur.LENGTHS, vidur.read_lengths),
    Format("csv", "simslm's own: arrival_s,prompt_tokens,output_tokens", plain.FIELDS, plain.read_csv),
)
_JSON = (
    Format(
        "ragpulse",
        "RAGPulse, with sessions (github.com/flashserve/RAGPulse)",
        mooncake.COUNTED,
        ragpulse.read,
        ragpulse.fits,
    ),
    Format("mooncake", "Mooncake, with prefix hashes (FAST 2025)", mooncake.COUNTED, mooncake.read),
    Format(
        "llmservingsim", "LLMServingSim's workloads (IISWC 2024)", llmservingsim.FIELDS, llmservingsim.read
    ),
    Format("jsonl", "simslm's own, one JSON object per line", plain.FIELDS, plain.read_json),
)
_PARQUET = Format("parquet", "simslm's own as Parquet", plain.FIELDS, parquet.read)

FORMATS: dict[str, Format] = {each.name: each for each in (*_TEXT, *_JSON, _PARQUET)}
"""By name; where a file could be several, the first is meant."""


def read_trace(path: Path, format_: str = "auto") -> tuple[Recording, str]:
    """The requests of a file, whole, and the name of its format.

    Args:
        path: the file.
        format_: a name in :data:`FORMATS`, or ``auto`` for what the file's columns say.

    Raises:
        ScenarioError: naming file and line, what was expected, and the remedy.
    """
    name = detect(path) if format_ == "auto" else format_
    return gathered(FORMATS[name].read(path)), name


def read_pieces(path: Path, format_: str = "auto") -> Iterator[Recording]:
    """The same piece by piece: memory does not grow with the file, but for its sessions and prefixes."""
    return FORMATS[detect(path) if format_ == "auto" else format_].read(path)


def rows_at_most(path: Path) -> float:
    """A number of rows that a file does not exceed, by what is cheap to know of it; inf where nothing is."""
    check_file(path, f"formats: {', '.join(FORMATS)}")
    if _is_parquet(path):
        return parquet.rows(path)
    if path.suffix == ".gz":
        return math.inf
    least = _LEAST_JSON_BYTES if _first_bytes(path, 1) == b"{" else _LEAST_CSV_BYTES
    return path.stat().st_size / least


def detect(path: Path) -> str:
    """The name of the format that a file has, by its first line.

    Raises:
        ScenarioError: there is no such file, or its columns are of no format.
    """
    check_file(path, f"formats: {', '.join(FORMATS)}")
    if _is_parquet(path):
        return _PARQUET.name
    line = first_line(path, _MOST_HEAD_BYTES)
    row = _json_row(path, line) if line.lstrip().startswith("{") else _csv_row(path, line)
    candidates = _JSON if line.lstrip().startswith("{") else _TEXT
    for each in candidates:
        if set(each.columns) <= set(row) and each.fits(row):
            return each.name
    known = sorted({name for each in candidates for name in each.columns})
    close = next((hint for name in row if name not in known and (hint := nearest(name, known))), "")
    columns = ", ".join(row)[:200]
    if not columns.isprintable():
        columns, close = "no text", ""
    raise ScenarioError(
        f"of no known format: it has {columns or 'nothing'}{close}",
        where=f"{path}:1",
        remedy=f"csv has arrival_s,prompt_tokens,output_tokens; known formats: {', '.join(FORMATS)}",
    )


def _is_parquet(path: Path) -> bool:
    if path.suffix == ".parquet":
        return True
    return _first_bytes(path, 4) == b"PAR1"


def _first_bytes(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def _json_row(path: Path, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ScenarioError(
            f"not valid JSON ({error})", where=f"{path}:1", remedy="expected one JSON object per line"
        ) from None
    return {str(name): value for name, value in row.items()}


def _csv_row(path: Path, line: str) -> dict[str, Any]:
    """The columns of a CSV file with their first values, empty where there are none."""
    with opened_text(path, newline="") as file:
        try:
            reader = csv.reader(file)
            header, first = next(reader, []), next(reader, [])
        except csv.Error:
            header, first = line.split(","), []
    return dict(zip(header, first + [""] * len(header), strict=False))
