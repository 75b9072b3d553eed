"""Serving for real: a continuous-batching loop on the engine, with the simulator's own policies, on the wall clock."""
