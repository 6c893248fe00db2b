"""
The service proxy: services and endpoint slices become one nftables ruleset.

Policies and pod addresses are not decided here.
"""
