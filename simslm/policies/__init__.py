"""One file per policy: who runs next, who waits where, who is let in, and where a request goes.

To add one: copy the shortest file of ``batching/``, ``queueing/``, ``routing/`` or of any other
folder here, change the class and the line that registers it. Nothing else has to know.
"""

from simslm.policies import (
    admission,
    batching,
    gateway,
    group_routing,
    partition,
    preemption,
    priorities,
    queueing,
    routing,
    speculation,
)
from simslm.policies.registry import discover

for folder in (
    admission,
    batching,
    gateway,
    group_routing,
    partition,
    preemption,
    priorities,
    queueing,
    routing,
    speculation,
):
    discover(folder)
