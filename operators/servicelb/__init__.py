"""
Services of type LoadBalancer get addresses of nodes.

Forwarding the traffic is the service proxy's work, not ours.
"""
