"""Runs that somebody measured: reading them, running them again by simulation, and what follows from them.

table      a row of ``RUNS.csv`` as it was written
benchmark  the same from the result files of ``vllm bench serve`` and guidellm
replay     a row as a scenario, and a simulation's result under the row's column names
derived    knee, batch advice, memory freed, joules per token
"""
