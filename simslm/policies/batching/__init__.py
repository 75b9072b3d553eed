"""Batching policies: which sequences run in the next iteration of a replica, and how much of each prompt.

A policy is a class with one method, ``plan(view) -> Plan``. It sees a :class:`ReplicaView` and changes nothing:
the replica applies the plan. The true output length of a request is not in the view.
"""
