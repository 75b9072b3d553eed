"""Arrivals and lengths of requests: generated from the scenario, or read from a recorded trace."""

from simslm.workload.classes import requests_of, supply_of
from simslm.workload.generate import generate
from simslm.workload.requests import ClosedLoop, RequestArrays

__all__ = ["ClosedLoop", "RequestArrays", "generate", "requests_of", "supply_of"]
