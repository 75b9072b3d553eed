"""One file per policy: who runs next, and where a request goes.

To add one: copy the shortest file of ``batching/`` or ``routing/``, change the class and the line that registers
it. Nothing else has to know.
"""

from simslm.policies import batching, routing
from simslm.policies.registry import discover

discover(batching)
discover(routing)
