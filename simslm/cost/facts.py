"""The facts of a cost model beside its prices: source, engine, idle power, provenance, demand, co-located rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from simslm.cost.sharing import DemandModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts of a cost model; a model made of another changes some of them and passes on the rest.

    Attributes:
        source: ``measured | calibrated | imported | roofline``.
        engine: name and version of the engine whose host time this is, and what was changed about it.
        idle_w: device power with nothing running, W; None when the model knows no power.
        power_note: why energy is unknown; empty when it is known.
        provenance: what goes into the manifest.
        demand: what an iteration asks of a shared device; None = as the roofline has it.
        colocated: iterations measured with other replicas on the device, rows of a trace; None without.
    """

    source: str
    engine: str
    idle_w: float | None
    power_note: str
    provenance: dict[str, Any]
    demand: DemandModel | None = None
    colocated: pa.Table | None = None

    def noting(self, **provenance: Any) -> Facts:
        """The same with more in the provenance."""
        return replace(self, provenance={**self.provenance, **provenance})

    def changed(self, words: str, **provenance: Any) -> Facts:
        """The same with a change: in words, added to the engine's name, and as entries of the provenance."""
        return replace(self.noting(**provenance), engine=f"{self.engine}; {words}")
