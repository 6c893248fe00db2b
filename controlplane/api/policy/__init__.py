"""
The RBAC objects that every cluster has from its first start, as data.

How they get into the cluster stands in :mod:`controlplane.api.bootstrap_policy`;
roles of packaged components come with their manifests and do not belong here.
"""
