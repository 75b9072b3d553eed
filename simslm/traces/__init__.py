"""Traces: what was measured on a device, as Parquet files that say where every figure comes from."""
