"""A device in, a trace out: a torch transformer engine and the instruments that measure its iterations.

Torch lives here and nowhere else. The rest of simslm reads the traces this package writes.
"""

ENGINE_NAME = "simslm-engine"
ENGINE_VERSION = "0.5.0"
ENGINE = f"{ENGINE_NAME} {ENGINE_VERSION}"
"""What a trace's provenance calls the measured engine; a host time is only valid for this one."""
