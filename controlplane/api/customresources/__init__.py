"""
Custom resources in the API server: definitions become kinds that are served.

What a definition may say stands in :mod:`controlplane.objects.definitions`; its
status and its end are a controller's work.
"""
