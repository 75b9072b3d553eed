"""What a simulation leaves behind: the iterations of its replicas, and what became of its requests."""

from simslm.sim.log.replica import ReplicaLog
from simslm.sim.log.requests import (
    FAILED,
    FINISHED,
    REJECTED,
    STATUS,
    UNFINISHED,
    Move,
    RequestLog,
    Settled,
)
from simslm.sim.log.simulation import GroupCounts, Life, SimulationLog
from simslm.sim.log.sink import LogSink
from simslm.sim.log.window import Window

__all__ = [
    "FAILED",
    "FINISHED",
    "REJECTED",
    "STATUS",
    "UNFINISHED",
    "GroupCounts",
    "Life",
    "LogSink",
    "Move",
    "ReplicaLog",
    "RequestLog",
    "Settled",
    "SimulationLog",
    "Window",
]
