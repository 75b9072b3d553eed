"""Measured runs: reading them, running them again by simulation, and the figures that follow.

    source     runs from tables and from result files
    table      a row of ``RUNS.csv`` as it was written
    vllm       a result file of ``vllm bench serve``
    guidellm   a ``benchmarks.json`` of guidellm
    replay     a run as a scenario, and a simulation's result under the columns of ``RUNS.csv``
    derived    knee, batch advice, memory freed, joules per token

Columns have the same names and definitions everywhere, measured or simulated.
"""
