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

Read = Callable[..., Iterator[Recording]]
"""From a path, and what is stated of the file's units, to its requests."""
KEYS = {"ticks_per_s": "replay.time_unit", "unit_tokens": "replay.hash_tokens"}
"""What a scenario calls the units of a file."""

TEXTS = ("conversations", "conversation", "messages", "prompt", "text", "instruction")
"""Keys of data sets that hold texts."""

_MOST_HEAD_BYTES = 1 << 24
_LEAST_CSV_BYTES = len("1,1\n")
_LEAST_JSON_BYTES = len('{"prompt_tokens":1,"output_tokens":1}\n')


@dataclass(frozen=True, slots=True)
class Format:
    """A file format.

    Attributes:
        name: as ``replay.format`` names it.
        what: it holds, and where it is from.
        columns: a file of this format has all of these.
        read: from a file to its requests, in pieces.
        fits: whether a file's first row, by column, is of this format; where formats have the same columns.
        time: the column of arrival times, where a file may be without.
        dialect: what of its units a scenario may state, by the names that ``read`` takes.
    """

    name: str
    what: str
    columns: Collection[str]
    read: Read
    fits: Callable[[dict[str, Any]], bool] = lambda _row: True
    time: str = ""
    dialect: Collection[str] = ()


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
    Format(
        "csv",
        "simslm's own: arrival_s,prompt_tokens,output_tokens",
        plain.FIELDS,
        plain.read_csv,
        time="arrival_s",
    ),
)
_JSON = (
    Format(
        "ragpulse",
        "RAGPulse, with sessions (github.com/flashserve/RAGPulse)",
        {"timestamp", *mooncake.LENGTHS},
        ragpulse.read,
        ragpulse.fits,
    ),
    Format(
        "qwen-bailian",
        "Qwen-Bailian, with prefix hashes and conversations",
        mooncake.CHATS,
        mooncake.read_bailian,
        dialect=("ticks_per_s", "unit_tokens"),
    ),
    Format(
        "mooncake",
        "Mooncake, with prefix hashes (FAST 2025), and what aiperf, Dynamo and ServeGen write",
        mooncake.LENGTHS,
        mooncake.read,
        time="timestamp",
        dialect=("ticks_per_s", "unit_tokens"),
    ),
    Format(
        "llmservingsim", "LLMServingSim's workloads (IISWC 2024)", llmservingsim.FIELDS, llmservingsim.read
    ),
    Format(
        "jsonl",
        "simslm's own, one JSON object per line",
        plain.FIELDS,
        plain.read_json,
        time="arrival_s",
    ),
)
_PARQUET = Format("parquet", "simslm's own as Parquet", plain.FIELDS, parquet.read)

FORMATS: dict[str, Format] = {each.name: each for each in (*_TEXT, *_JSON, _PARQUET)}
"""By name; where a file could be several, the first is meant."""


def read_trace(path: Path, format_: str = "auto", **dialect: int) -> tuple[Recording, str]:
    """The requests of a file, whole, and the name of its format.

    Args:
        path: the file.
        format_: a name in :data:`FORMATS`, or ``auto`` for what the file's columns say.
        dialect: what is stated of its units: ``ticks_per_s``, ``unit_tokens``.

    Raises:
        ScenarioError: naming file and line, what was expected, and the remedy.
    """
    name = detect(path) if format_ == "auto" else format_
    return gathered(read_pieces(path, name, **dialect)), name


def read_pieces(path: Path, format_: str = "auto", **dialect: int) -> Iterator[Recording]:
    """The same piece by piece: memory does not grow with the file, but for its sessions and prefixes."""
    chosen = FORMATS[detect(path) if format_ == "auto" else format_]
    if format_ != "auto" and chosen.time and chosen is not _PARQUET:
        _check_time(path, chosen, _columns(path))
    if foreign := [KEYS[name] for name in dialect if name not in chosen.dialect]:
        raise ScenarioError(
            f"is of format {chosen.name}, whose units are fixed",
            where=str(path),
            remedy=f"leave {' and '.join(foreign)} out",
        )
    return chosen.read(path, **dialect)


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
    if line.lstrip().startswith("["):
        raise _listed(path)
    as_json = line.lstrip().startswith("{")
    row = _columns(path)
    candidates = _JSON if as_json else _TEXT
    known = sorted({name for each in candidates for name in (*each.columns, each.time) if name})
    for each in candidates:
        if set(each.columns) <= set(row) and each.fits(row):
            _check_time(path, each, row)
            return each.name
    if as_json and (texts := [name for name in TEXTS if name in row]):
        raise _of_texts(path, texts[0])
    raise _unknown(path, row, _misspelt(row, known, known))


def _columns(path: Path) -> dict[str, Any]:
    """The columns of a text file with their first values."""
    check_file(path, f"formats: {', '.join(FORMATS)}")
    line = first_line(path, _MOST_HEAD_BYTES)
    return _json_row(path, line) if line.lstrip().startswith("{") else _csv_row(path, line)


def _check_time(path: Path, chosen: Format, row: Collection[str]) -> None:
    """A file without times says nothing of them, rather than something misspelt.

    Raises:
        ScenarioError: it has a column whose name is nearly that of arrival times.
    """
    known = {name for each in FORMATS.values() for name in each.columns}
    if chosen.time and chosen.time not in row and (close := _misspelt(row, [chosen.time], known)):
        raise ScenarioError(
            f"has no column {chosen.time}, but one that is nearly called so{close}",
            where=f"{path}:1",
            remedy=f"{chosen.name} has {', '.join((chosen.time, *chosen.columns))}",
        )


def begins_as_trace(path: Path) -> bool:
    """Whether a JSON file is one list, or an object a line with the keys of a trace or of a text, not one object."""
    line = first_line(path, _MOST_HEAD_BYTES).strip()
    if line.startswith("["):
        return True
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    known = any(set(each.columns) <= set(row) for each in _JSON) if isinstance(row, dict) else False
    return known or (isinstance(row, dict) and any(name in row for name in TEXTS))


def _misspelt(row: Collection[str], meant: list[str], known: Collection[str]) -> str:
    """A hint at the first unknown column that is nearly one that is meant; empty without."""
    return next((hint for name in row if name not in known and (hint := nearest(name, meant))), "")


def _unknown(path: Path, row: Collection[str], close: str) -> ScenarioError:
    columns = ", ".join(row)[:200]
    if not columns.isprintable():
        columns, close = "no text", ""
    return ScenarioError(
        f"of no known format: it has {columns or 'nothing'}{close}",
        where=f"{path}:1",
        remedy=f"csv has arrival_s,prompt_tokens,output_tokens; known formats: {', '.join(FORMATS)}",
    )


def _of_texts(path: Path, key: str) -> ScenarioError:
    return ScenarioError(
        f"holds texts ({key}), and no numbers of tokens",
        where=str(path),
        remedy="count them with your model's tokenizer, and give prompt_tokens and output_tokens in each line",
    )


def _listed(path: Path) -> ScenarioError:
    """What is wrong with a file that is one JSON list."""
    with opened_text(path) as file:
        head = file.read(1 << 16)
    texts = [key for key in TEXTS if f'"{key}"' in head]
    if texts:
        return _of_texts(path, texts[0])
    return ScenarioError(
        "is one JSON list", where=str(path), remedy="write one JSON object per line, each a request"
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
