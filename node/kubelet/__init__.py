"""
Pods on this node: from wanted pods and what the runtime reports to steps, and back to status.

Pod networking beyond asking the runtime for a sandbox belongs in :mod:`node.network`.
"""
