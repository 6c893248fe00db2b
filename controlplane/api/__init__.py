"""
HTTP in front of the store: who asks, whether they may, and the verbs.

What an object is stands in :mod:`controlplane.objects`; reconciling one object
with another is the controllers' work and does not belong here.
"""
