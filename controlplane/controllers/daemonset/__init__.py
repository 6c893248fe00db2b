"""
DaemonSet → Pod: one on each node that may have one.

Which pod is for which node is written into its node affinity; binding it is the
scheduler's business.
"""
