"""
The kopf operators: ordinary users of the Kubernetes API, each alone.

Nothing of the control plane or the node is imported here, so that the same code
runs against any conformant Kubernetes.
"""
