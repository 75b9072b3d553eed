"""A scenario with everything it names looked up: what the simulator, the metrics and a run's manifest need of it."""
