"""What a replica is put together from: the parts it was asked for, and the state they need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from simslm.errors import SimslmError
from simslm.mechanisms import CONTROL, conflicts
from simslm.sim.parts.bounded_kv import BoundedBatch, BoundedKV
from simslm.sim.parts.handoff import ROLES
from simslm.sim.parts.membership import Membership
from simslm.sim.parts.part import Part
from simslm.sim.parts.speculation import Speculating, VerifiedBatch, VerifiedPool
from simslm.sim.parts.swap import Swap
from simslm.sim.parts.turns import Turns
from simslm.sim.parts.urgency import Urgency
from simslm.sim.state.batch import Batch
from simslm.sim.state.blocks import UNBOUNDED, BlockPool, BlockStore, StorePool
from simslm.sim.state.prefix import PrefixCache
from simslm.sim.transit import Transit

if TYPE_CHECKING:
    from simslm.sim.log import ReplicaLog
    from simslm.sim.replica import Replica
    from simslm.sim.setup import Setup


def asked(setup: Setup) -> Iterator[str]:
    """The mechanisms of a replica, by name."""
    engine, policies = setup.engine, setup.policies
    wanted = {
        "roles": setup.role != "both",
        "bounded-kv": engine.kept_tokens is not None,
        "speculation": policies.speculation is not None,
        "urgency": policies.priorities is not None,
        "swap": bool(engine.swap_blocks),
        "turns": engine.swap_turns,
        "prefix-caching": engine.prefix_caching,
        "late-output": engine.late_output and not policies.batching.holds_batch,
        "spare-block": engine.spare_block,
        "reservation": policies.batching.reserves_output,
        "held-batch": policies.batching.holds_batch,
        **{name: name in setup.control for name in CONTROL},
    }
    return (name for name, is_wanted in wanted.items() if is_wanted)


def parts_of(replica: Replica, setup: Setup) -> tuple[Part, ...]:
    """The parts of a replica, in the order in which they are asked at each moment.

    Raises:
        SimslmError: two of them do not go together.
    """
    names = set(asked(setup))
    for one, other, why in conflicts(names):
        raise SimslmError(f"replica {setup.index}: {one} does not go with {other}: {why}")
    moving = tuple(_moving(replica, setup, names))
    return (*_orders(replica, setup, moving), *moving, *_shaping(replica, setup))


def _orders(replica: Replica, setup: Setup, moving: tuple[Part, ...]) -> Iterator[Part]:
    """What carries out the orders of the control plane: it comes first, before sequences come back."""
    if not setup.control:
        return
    transit = next((part for part in moving if isinstance(part, Transit)), None)
    swap = next((part for part in moving if isinstance(part, Swap)), None)
    yield Membership(replica, transit, swap, setup.engine.transfer_s_per_block)


def _moving(replica: Replica, setup: Setup, names: set[str]) -> Iterator[Part]:
    """Those between which sequences and blocks move."""
    if not names & {"roles", "urgency", "swap", "turns", "migration"}:
        return
    yield (transit := Transit(replica))
    swap = Swap(replica, transit, setup.engine) if names & {"swap", "turns"} else None
    if swap is not None:
        yield swap
    if "roles" in names:
        yield ROLES[setup.role](replica, transit, setup.engine)
    if setup.policies.priorities is not None:
        promises = not setup.policies.order.urgent_first
        yield Urgency(replica, transit, setup.policies.priorities, promises=promises)
    if swap is not None and "turns" in names:
        yield Turns(replica, swap)


def _shaping(replica: Replica, setup: Setup) -> Iterator[Part]:
    """Those that change what the device runs."""
    if setup.engine.kept_tokens is not None:
        yield BoundedKV(replica)
    if setup.policies.speculation is not None:
        yield Speculating(replica, setup.policies.speculation)


def state_of(setup: Setup, log: ReplicaLog) -> tuple[BlockPool, Batch]:
    """The KV blocks and the batch of a replica, empty."""
    engine, speculation, store = setup.engine, setup.policies.speculation, setup.store
    kept = UNBOUNDED if engine.kept_tokens is None else engine.kept_tokens
    prefix = PrefixCache() if engine.prefix_caching and store is None else None
    if speculation is not None:
        reserves = setup.policies.batching.reserves_output
        batch = VerifiedBatch(speculation.acceptance, engine.block_size, kept, takes=not reserves)
        store = BlockStore(engine.num_gpu_blocks, prefix) if store is None else store
        return VerifiedPool(store, batch, speculation.num_speculative_tokens, kept), batch
    if store is None:
        pool = BlockPool(engine.num_gpu_blocks, engine.block_size, prefix, kept)
    else:
        pool = StorePool(store, engine.block_size, kept)
    return pool, Batch() if engine.kept_tokens is None else BoundedBatch(pool, log)
