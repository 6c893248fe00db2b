"""
Services of type LoadBalancer get addresses of nodes.

Forwarding the traffic is not our work: the service proxy of each node does it, or, on
another Kubernetes, the pods of a DaemonSet for each Service.
"""
