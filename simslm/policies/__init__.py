"""One file per policy: which requests run next, in which order they wait, which are let in, and where each one goes.

To add one: copy the shortest file of ``batching/``, ``queueing/``, ``routing/`` or of any other
folder here, change the class and the line that registers it. Nothing else has to change.
"""

from simslm.policies import (
    admission,
    batching,
    partition,
    preemption,
    priorities,
    queueing,
    routing,
    speculation,
)
from simslm.policies.registry import discover

for folder in (admission, batching, partition, preemption, priorities, queueing, routing, speculation):
    discover(folder)
