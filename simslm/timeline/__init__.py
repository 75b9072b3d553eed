"""The life of a run as a Chrome trace, for https://ui.perfetto.dev and chrome://tracing.

Made from the files of a run directory, row group by row group: memory does not grow with the run. The format is
"Trace Event Format" (Google, 2016): replicas are processes with one thread of complete events (iterations) and
counters; requests are nestable asynchronous events with their phases inside.
"""

from __future__ import annotations

from simslm.timeline.file import NAME, write_timeline

__all__ = ["NAME", "write_timeline"]
