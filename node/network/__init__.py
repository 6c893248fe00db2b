"""
The pod network of this node: addresses, routes, links and the CNI configuration.

Services are not known here; they belong in :mod:`node.proxy`.
"""
