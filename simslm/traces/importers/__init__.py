"""Traces made of what others measured, one module per source.

An importer reads a source and calls :func:`simslm.traces.files.write_trace` with ``provenance.source`` = ``imported``,
which checks every column, unit and value; ``docs/trace-format.md`` says what they are. Its command is one of
``simslm traces import`` (``simslm/cli/groups.py``, ``simslm/cli/traces.py``).
"""
