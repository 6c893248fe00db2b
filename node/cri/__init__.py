"""
containerd over CRI v1: the only user of gRPC.

Deciding what to run belongs in :mod:`node.kubelet`.
"""
