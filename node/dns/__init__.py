"""
The cluster DNS server of this node.

It answers from services, endpoint slices and pods, and forwards the rest; it
writes nothing.
"""
