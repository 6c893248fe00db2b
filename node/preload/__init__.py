"""
Imports archives of images into containerd, in a process of its own that ends with it.

When to import what belongs in :mod:`node.kubelet.preload`.
"""
