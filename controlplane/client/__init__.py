"""
How everybody but the API server reads and writes objects.

``base`` is the contract; ``http`` speaks to an API server over TLS and ``cache``
keeps a list+watch in memory. Rules about what objects may contain do not belong here.
"""
