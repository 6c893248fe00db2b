"""
Network policy: what NetworkPolicies allow becomes rules in this node's kernel.

How packets reach a pod is not known here; addresses of Services are translated by
whoever does that before our rules see a packet.
"""
