"""Which engines there are to measure, by the name that a user gives."""

from __future__ import annotations

import importlib

from profiler.engines.subject import Subject
from simslm.errors import UsageError, nearest

OWN = "simslm"
"""The project's own engine, the only one whose operators and co-located replicas are measured too."""

ENGINES = {
    OWN: ("profiler.engines.own", "OwnEngine"),
    "vllm": ("profiler.engines.vllm_engine", "VllmEngine"),
    "transformers": ("profiler.engines.transformers_engine", "TransformersEngine"),
}
"""By name: the module and the class."""


def choose_engine(name: str) -> type[Subject]:
    """The class of an engine; nothing of another engine's package is imported yet.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in ENGINES:
        raise UsageError(
            f"engine {name!r} is not known{nearest(name, list(ENGINES))}",
            remedy=f"use one of {', '.join(ENGINES)}",
        )
    module, kind = ENGINES[name]
    return getattr(importlib.import_module(module), kind)


def refuse_others(name: str, *, replicas: bool, quantization: bool) -> None:
    """Replicas that share the device, and weights of eight bits, are measured with the own engine only.

    Raises:
        UsageError: for another one.
    """
    asked = {
        "replicas that share a device": (replicas, "--replicas"),
        "weights of eight bits": (quantization, "--quantization"),
    }
    for what, (is_asked, option) in asked.items():
        if is_asked and name != OWN:
            raise UsageError(
                f"{what} are measured with the engine {OWN} only, not with {name}",
                remedy=f"leave {option} away, or say --engine {OWN}",
            )
