"""How far simulation is from measurement: every measured run simulated as it was run, and compared."""
