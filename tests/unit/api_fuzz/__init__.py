"""
The API server against bodies, paths and clients that nobody meant to send.

Here belong the properties that hold for every request; what one verb or field
means is tested in ``tests/unit/api``.
"""
