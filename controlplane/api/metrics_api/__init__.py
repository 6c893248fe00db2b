"""
metrics.k8s.io: what nodes and pods use now, for ``kubectl top`` and autoscalers.

Measured when somebody asks, by asking the kubelets; at idle nothing is. It comes in where
an aggregated API server would, so that nobody takes its objects for stored ones.
"""
