"""One file per policy: which requests run next, in which order they wait, which are let in, and where each one goes.

To add one: copy the shortest file of ``batching/``, ``queueing/``, ``routing/`` or of any other
folder here, change the class and the line that registers it. Nothing else has to change.
"""

from simslm.policies import (
    admission,
    batching,
    faults,
    gateway,
    group_routing,
    migration,
    partition,
    power,
    preemption,
    priorities,
    queueing,
    routing,
    scaling,
    speculation,
)
from simslm.policies.registry import discover

for folder in (
    admission,
    batching,
    faults,
    gateway,
    group_routing,
    migration,
    partition,
    power,
    preemption,
    priorities,
    queueing,
    routing,
    scaling,
    speculation,
):
    discover(folder)
