"""
The AddOn deployer: what lies in the manifests folder is applied and pruned.

Charts are not rendered here; a HelmChart in the folder is an object like any other.
"""
