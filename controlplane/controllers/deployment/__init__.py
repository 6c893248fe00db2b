"""
Deployment → ReplicaSet: rolling updates, recreation, rollbacks by revision, progress.

Pods are the ReplicaSets' business; nothing here creates or deletes one.
"""
