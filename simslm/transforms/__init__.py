"""What changes how a model is served: one file per transform, each with its formula and source.

A transform changes the shape a device is asked for, the work of that shape, the time around it, or the memory that
weights and KV cache take. ``cost: {transforms: [{host: ...}, {xquant: ...}]}`` names them; ``simslm list transforms``
shows the choice. A new one is a new file here: a class with its options, and the line that registers it.
"""

import sys

from simslm.policies.registry import discover

discover(sys.modules[__name__])
