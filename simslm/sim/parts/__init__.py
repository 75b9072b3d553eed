"""The mechanisms of a replica, one file for each; see :class:`~simslm.sim.parts.part.Part`."""
