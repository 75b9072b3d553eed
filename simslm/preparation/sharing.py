"""What replicas ask of a shared device, and how they slow each other down there."""

from __future__ import annotations

from collections.abc import Iterable

from simslm.catalog.devices import Device
from simslm.cost.interference import Contended, contention
from simslm.cost.sharing import DemandModel, RooflineDemand, Sharing, sharing
from simslm.preparation.groups import PreparedGroup


def demand_of(group: PreparedGroup, device: Device, dtype: str) -> DemandModel:
    """The demand of a group's iterations on a shared device: its cost model's own, else by the roofline."""
    known = group.cost.demand
    return known or RooflineDemand(group.architecture, device, dtype, transforms=group.changes)


def sharing_of(kind: str, count: int, groups: Iterable[PreparedGroup], device: Device, dtype: str) -> Sharing:
    """The speeds of ``count`` replicas on one device: measured where a trace has replicas together, else modelled.

    Args:
        kind: the way of sharing, as in ``deployment.sharing``.
        count: replicas on the device.
        groups: with their traces; of several measured contentions the largest counts.
        device: that is shared.
        dtype: of the weights and the KV cache.
    """
    modelled = sharing(kind, count)
    found = [
        contention(rows, group.cost, demand_of(group, device, dtype), modelled)
        for group in groups
        if (rows := group.cost.colocated) is not None
    ]
    known = [factor for factor in found if factor is not None]
    return Contended(modelled, max(known)) if known else modelled
