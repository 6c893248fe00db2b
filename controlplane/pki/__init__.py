"""
Certificate authorities, leaf certificates, keys, tokens and kubeconfigs on disk.

Who may do what with them is decided in :mod:`controlplane.api`, not here.
"""
