"""The page ``docs/trace-format.md``: tables, columns, units and provenance of a trace, written from the schema."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from simslm.traces.schema import PROVENANCE, REQUIRED_PROVENANCE, ROWS, SCHEMA_VERSION, SOURCES, TABLES, VERSIONS
from simslm.traces.terms import OPTIONAL, TERMS

COMMAND = "simslm traces schema"
"""What prints the page."""

ABOUT = """A trace is a directory of Parquet files about one model on one device, `traces/DEVICE/MODEL-DTYPE/`. It has
`iterations.parquet` or, where it was fitted by `simslm calibrate`, `terms.parquet`; the other tables may be missing.
`simslm traces check` looks for faults in one, and `simslm traces import` makes one of a CSV file with the columns below.

The metadata of every file has `simslm.schema` (the name of the table), `simslm.schema_version` and
`simslm.provenance` (JSON, the same in all files). Every field has its `unit` and its meaning, `doc`, in its own metadata:

```python
import json
import pyarrow.parquet as pq

schema = pq.read_schema("traces/cpu/opt-125m-bf16/iterations.parquet")
provenance = json.loads(schema.metadata[b"simslm.provenance"])
print(provenance["source"], provenance["engine"])
print(schema.field("latency_s").metadata[b"unit"].decode())
```

Units: seconds, joules, watts, bytes; `1` is a plain number or a share from 0 to 1. A column that may be null may also be
missing. A trace with a null where none may be, a negative duration, or a column that is not listed here is refused with
the row at fault."""


def markdown() -> str:
    """The text of the page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield from ("# The format of a trace", "", f"Written by `{COMMAND}` from the schema itself.", "", ABOUT, "")
    for name, schema in TABLES.items():
        yield from (f"## {name}.parquet", "", f"{_sentence(ROWS[name])}", "")
        if name == "heldout":
            continue
        yield from ("| column | type | unit | null | meaning |", "|---|---|---|---|---|")
        yield from map(_column, schema)
        yield ""
        if name == "terms":
            yield from _terms()
    yield from _provenance()
    yield from _versions()


def _column(field: pa.Field) -> str:
    unit, doc = (field.metadata[key].decode() for key in (b"unit", b"doc"))
    null = "may be" if field.nullable else ""
    return f"| `{field.name}` | {field.type} | {unit} | {null} | {doc} |"


def _terms() -> Iterator[str]:
    yield from ("The terms, and the values that physics leaves open:", "")
    yield from ("| term | unit | from | to | may be missing | meaning |", "|---|---|---|---|---|---|")
    for name, term in TERMS.items():
        missing = "yes" if name in OPTIONAL else ""
        yield f"| `{name}` | {term.unit} | {term.low:g} | {term.high:g} | {missing} | {term.doc} |"
    yield ""


def _provenance() -> Iterator[str]:
    yield from ("## Provenance", "", "A key may be null where the machine has no such thing, and there may be others.", "")
    yield from (f"| key | {' | '.join(SOURCES)} | says |", f"|---|{'---|' * len(SOURCES)}---|")
    for key, doc in PROVENANCE.items():
        needed = ("needed" if key in REQUIRED_PROVENANCE[source] else "" for source in SOURCES)
        yield f"| `{key}` | {' | '.join(needed)} | {doc} |"
    yield ""


def _versions() -> Iterator[str]:
    yield from ("## Versions", "", f"This simslm writes and reads version {SCHEMA_VERSION}, and refuses any other.", "")
    yield from ("| version | has |", "|---|---|")
    yield from (f"| {number} | {what} |" for number, what in VERSIONS.items())
    yield ""
    yield "A column that may be null comes without a new version; anything else that changes needs one."


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
