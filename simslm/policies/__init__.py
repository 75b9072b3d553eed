"""One file per policy: who runs next, who waits where, who is let in, and where a request goes.

To add one: copy the shortest file of ``batching/``, ``queueing/``, ``admission/`` or ``routing/``, change the
class and the line that registers it. Nothing else has to know.
"""

from simslm.policies import admission, batching, queueing, routing
from simslm.policies.registry import discover

for folder in (admission, batching, queueing, routing):
    discover(folder)
