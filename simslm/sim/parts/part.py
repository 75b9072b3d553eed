"""A part: one mechanism of a replica, and the moments at which the replica's loop asks it.

A replica binds, once and for each moment, the parts that do something then. So a moment costs a replica without such
parts no more than a loop over nothing, and none lies in a loop over sequences but those at which a sequence leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from simslm.catalog.work import IterationShape
from simslm.mechanisms import EXCLUDES
from simslm.policies.plan import Plan
from simslm.sim.state.sequence import Sequence

if TYPE_CHECKING:
    from simslm.sim.replica import Replica

MOMENTS = (
    "after", "arrives", "before", "cancels", "ends", "gives_up", "holds", "horizon", "leaves", "moves_on",
    "preempted", "prefilled", "rivals", "shape", "short", "waits", "withholds",
)  # fmt: skip
"""The moments at which a replica asks its parts: methods of :class:`Part`."""


class Part:
    """One mechanism of a replica. It may hold sequences, blocks and alarms; only the replica runs iterations.

    At each moment a part does nothing unless it has a method of its own.

    Args:
        replica: whose part it is.

    Class attributes:
        name: the mechanism's, as in :data:`~simslm.mechanisms.MECHANISMS`; empty for what only serves other parts.
        ranks: paused sequences and prompts wait in one order; else prompts are admitted when no sequence is paused.
    """

    name: ClassVar[str] = ""
    ranks: bool = False

    def __init__(self, replica: Replica) -> None:
        self.replica = replica

    @classmethod
    def excludes(cls) -> Mapping[str, str]:
        """The mechanisms that it does not go with, and why."""
        return EXCLUDES.get(cls.name, {})

    # ---- requests come and go ------------------------------------------------------------------------------

    def arrives(self, sequence: Sequence) -> bool:
        """A request arrives. True: the part takes it, and it does not join the queue."""
        return False

    def cancels(self, sequence: Sequence) -> bool:
        """The client of a sequence has gone. True: the part holds the sequence and sees to it."""
        return False

    def prefilled(self, sequence: Sequence) -> bool:
        """A sequence has its first token and wants more. True: it goes on elsewhere."""
        return False

    def preempted(self, victim: Sequence, freed: int, beside: bool) -> bool:
        """A sequence has been taken off the device. True: the part sees to it; else it is prefilled again here.

        Args:
            victim: the sequence.
            freed: blocks that this gave back.
            beside: others may run while its blocks leave.
        """
        return False

    def ends(self, sequence: Sequence, now: float) -> None:
        """The last token of a sequence is out, or its client has gone."""

    def leaves(self, sequence: Sequence, tokens: int, freed: int) -> None:
        """A sequence with ``tokens`` tokens computed has given back its blocks, of which ``freed`` are free now."""

    def moves_on(self, sequence: Sequence) -> None:
        """A sequence goes on at another replica: the part lets go of what it keeps of it here."""

    def gives_up(self, sequence: Sequence) -> None:
        """The blocks of a sequence that went on at another replica are free here."""

    def holds(self) -> Collection[Sequence]:
        """Sequences of the replica that are neither in its queue, nor paused, nor running."""
        return ()

    def rivals(self) -> Iterable[Sequence]:
        """Those of them that wait for free blocks here, in their order."""
        return ()

    # ---- iterations ----------------------------------------------------------------------------------------

    def before(self) -> None:
        """The next iteration is about to be planned: sequences may come back."""

    def withholds(self) -> int:
        """Free blocks that prompts must leave to others."""
        return 0

    def short(self) -> None:
        """Blocks are short for the next iteration: the part may free some before a sequence is preempted."""

    def waits(self, now: float) -> float:
        """Seconds that the iteration which begins waits for the part."""
        return 0.0

    def shape(self, shape: IterationShape, plan: Plan) -> IterationShape:
        """What the device runs for a plan, from what it would run without the part."""
        return shape

    def horizon(self, limit: int) -> int:
        """How many iterations, at most ``limit``, may be taken in one jump before the part wants a look."""
        return limit

    def after(self) -> None:
        """Iterations are over and applied."""


def bound(parts: Iterable[Part], moment: str) -> tuple[Callable[..., Any], ...]:
    """What is called at a moment: the method of each part that has one of its own, in the order of the parts."""
    return tuple(
        getattr(part, moment) for part in parts if getattr(type(part), moment) is not getattr(Part, moment)
    )
