"""The register of policies: one file per policy, one line to register it.

``simslm list policies``, the scenario schema, its error messages and the report's labels all come from here.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Annotated, Any, Literal, TypeVar, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, create_model

from simslm.errors import UsageError, nearest

KINDS = (
    "admission",
    "batching",
    "faults",
    "gateway",
    "group-routing",
    "migration",
    "partition",
    "power",
    "preemption",
    "priorities",
    "queueing",
    "routing",
    "scaling",
    "speculation",
)


class PolicyOptions(BaseModel):
    """What a user may set on a policy, beside its name; a policy without options uses this as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Registered:
    """One policy: its kind, name, class, options model, and the first paragraph of its docstring.

    ``needs_stream`` says that it draws random numbers: its class takes a ``stream``, a generator of its own.
    """

    kind: str
    name: str
    cls: type[Any]
    options: type[PolicyOptions]
    summary: str
    needs_stream: bool


_REGISTER: dict[tuple[str, str], Registered] = {}

T = TypeVar("T", bound=type)


def policy(kind: str, name: str, options: type[PolicyOptions] = PolicyOptions) -> Callable[[T], T]:
    """Registers a class as the policy ``name`` of ``kind``; its docstring's first line is its description."""

    def register(cls: T) -> T:
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is no kind of policy: {', '.join(KINDS)}")
        if (kind, name) in _REGISTER:
            raise ValueError(f"{kind} policy {name!r} is registered twice")
        if not cls.__doc__:
            raise ValueError(f"{kind} policy {name!r} has no docstring: one line, with its source")
        summary = cls.__doc__.strip().split("\n\n")[0].replace("\n", " ")
        needs_stream = "stream" in inspect.signature(cls).parameters
        _REGISTER[kind, name] = Registered(kind, name, cls, options, " ".join(summary.split()), needs_stream)
        return cls

    return register


def discover(package: ModuleType) -> None:
    """Imports every module of a policy folder, so that a new file there is all it takes."""
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def registered(kind: str | None = None) -> list[Registered]:
    """All policies, or those of one kind, sorted by kind and name."""
    return [entry for key, entry in sorted(_REGISTER.items()) if kind in (None, key[0])]


def lookup(kind: str, name: str) -> Registered:
    """The policy of that kind and name.

    Raises:
        UsageError: there is none; the message names the nearest.
    """
    try:
        return _REGISTER[kind, name]
    except KeyError:
        names = [entry.name for entry in registered(kind)]
        raise UsageError(
            f"unknown {kind} policy {name!r}{nearest(name, names)}", remedy=f"known: {', '.join(names)}"
        ) from None


def create(kind: str, choice: Any, stream: Callable[[str], Any]) -> Any:
    """An instance of the policy that a scenario's ``choice`` (a model of :func:`choices`) names.

    Args:
        kind: of the policy.
        choice: its name and options.
        stream: makes the random generator of a name; called for policies that draw.
    """
    entry = lookup(kind, choice.policy)
    options = entry.options.model_validate(choice.model_dump(exclude={"policy"}))
    return entry.cls(options, stream=stream(kind)) if entry.needs_stream else entry.cls(options)


@cache
def choices(kind: str) -> Any:
    """The annotation of a scenario field that chooses a policy: ``{policy: name, option: value, ...}``."""
    models = tuple(_choice_of(entry) for entry in registered(kind))
    return Annotated[Union[models], Field(discriminator="policy")]  # noqa: UP007


def _choice_of(entry: Registered) -> Any:
    """The model of the choice of one policy: its name, and its options beside it."""
    return create_model(
        f"{entry.cls.__name__}Choice",
        __base__=entry.options,
        __doc__=entry.summary,
        policy=(Literal[entry.name], Field(description=entry.summary)),  # type: ignore[valid-type]
    )


@cache
def chosen(kind: str) -> Any:
    """The annotation of :func:`choices` in which a bare name stands for the policy without options."""
    whole, names = choices(kind), Literal[tuple(entry.name for entry in registered(kind))]  # type: ignore[valid-type]
    named = BeforeValidator(
        lambda value: {"policy": value} if isinstance(value, str) else value,
        json_schema_input_type=whole | names,
    )
    return Annotated[whole, named]


@cache
def choice(kind: str, name: str) -> Any:
    """The policy ``name`` of ``kind`` without options set, as a scenario field of :func:`chosen` holds it.

    The same frozen object each time: to build a validator takes a millisecond, a scenario has nine such fields, and a
    search loads thousands of scenarios.
    """
    return TypeAdapter(chosen(kind)).validate_python(name)
