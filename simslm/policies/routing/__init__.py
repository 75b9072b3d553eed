"""Routing policies: which replica an arriving request goes to.

A policy is a class with one method, ``choose(request, replicas) -> index``.
"""
