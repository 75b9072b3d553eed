"""What a user writes under ``workload.classes``: tenants or categories, each with its own traffic, SLO and priority."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, ValidationError, model_validator

from simslm.scenario.arrivals import ClientArrivals
from simslm.scenario.slo import Slo
from simslm.scenario.workload import Workload

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$", max_length=100)]

OWN = ("arrivals", "replay", "preset")
"""A class that states one of these does not share the workload's arrivals."""

OF_ARRIVALS = ("arrivals", "num_requests", "duration_s")
OF_CLIENTS = ("max_tokens", "priorities", "timeout_s", "cancellations")
"""What a class that replays a trace takes over from the workload; others take over everything."""


class TrafficClass(Workload):
    """A class of requests: the keys of a workload, and where it states none, what the workload says.

    A class that states arrivals, a preset or a replay has traffic of its own; the others divide the workload's
    arrivals by their shares.
    """

    share: float | None = Field(
        default=None,
        gt=0,
        le=1e9,
        description="part of the workload's arrivals, relative to the other classes' shares; 1 by default",
    )
    priority: int | None = Field(
        default=None, ge=-(2**53), le=2**53, description="of all its requests: the lower, the sooner"
    )
    slo: Slo | None = Field(default=None, description="in place of the scenario's")

    @property
    def sharing(self) -> bool:
        """Whether it takes its part of the workload's arrivals."""
        return all(getattr(self, name) is None for name in OWN)

    @model_validator(mode="after")
    def _replayed_or_generated(self) -> TrafficClass:
        """What else it has to state depends on the workload it is in."""
        if not self.sharing and self.share is not None:
            raise ValueError("share is that of the workload's arrivals; this class has its own")
        given = [name for name in OF_ARRIVALS[1:] if getattr(self, name) is not None]
        if self.sharing and given:
            raise ValueError(
                f"{', '.join(given)} cannot be stated by a class that shares the workload's arrivals"
            )
        if self.priority is not None and self.priorities is not None:
            raise ValueError("either one priority or shares of several priorities, not both")
        return self


class Traffic(Workload):
    """The workload of a scenario: one kind of requests, or several classes of them."""

    classes: dict[Name, TrafficClass] | None = Field(
        default=None, min_length=1, description="tenants or categories, by name"
    )

    @property
    def files(self) -> tuple[str, ...]:
        """The files it reads, as it names them."""
        if self.classes is None:
            return super().files
        return tuple(dict.fromkeys(file for part in self.parts().values() for file in part.files))

    @property
    def has_programs(self) -> bool:
        """Whether some of its requests wait for others."""
        parts = (self,) if self.classes is None else self.parts().values()
        return any(part.programs is not None for part in parts)

    def parts(self) -> dict[str, Workload]:
        """The workload of each class, with what it takes over.

        Raises:
            ValueError: a class and the workload together are no workload.
        """
        return {name: self._part(name, each) for name, each in (self.classes or {}).items()}

    def _part(self, name: str, each: TrafficClass) -> Workload:
        taken = set(Workload.model_fields) - {*OWN, *OF_ARRIVALS}
        if each.sharing:
            taken |= set(OF_ARRIVALS)
        elif each.replay is not None or each.preset is not None:
            taken = set(OF_CLIENTS)
        elif each.num_requests is None:
            taken.add("duration_s")
        if each.priority is not None:
            taken.discard("priorities")
        values = {key: getattr(self, key) for key in taken - each.model_fields_set}
        values |= {key: getattr(each, key) for key in each.model_fields_set if key in Workload.model_fields}
        try:
            return Workload.model_validate(values)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            raise ValueError(f"classes.{name}: {fault.get('ctx', {}).get('error', fault['msg'])}") from None

    @model_validator(mode="after")
    def _replayed_or_generated(self) -> Traffic:
        if self.classes is None:
            return super()._replayed_or_generated()  # type: ignore[return-value]
        unused = [name for name in ("replay", "preset") if getattr(self, name) is not None]
        if not any(each.sharing for each in self.classes.values()):
            unused += [name for name in ("arrivals", "num_requests") if getattr(self, name) is not None]
        if unused:
            raise ValueError(
                f"{', '.join(unused)} stand beside classes of which none takes them over; remove them"
            )
        if isinstance(self.arrivals, ClientArrivals):
            raise ValueError(
                "arrivals of clients cannot be divided between classes; a class can have them as its own"
            )
        paced = [name for name, part in self.parts().items() if part.paced]
        if paced:
            raise ValueError(
                f"arrivals: rate_rps of a closed loop cannot be that of a class ({', '.join(paced)}); give "
                "its clients no rate, or its arrivals another process"
            )
        return self
