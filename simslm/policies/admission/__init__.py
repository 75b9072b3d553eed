"""Admission policies: whether an arriving request is let in at all.

A policy is a class with one method, ``admits(request, replica) -> bool``, asked once the router has chosen a
replica; a request that is not let in is rejected.
"""
