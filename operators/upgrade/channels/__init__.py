"""
Where versions come from: signed channels, folders of bundles, and K3s's channel servers.

``listing.py`` is what a channel says, ``signed.py`` who said it, ``fetch.py`` gets bytes and asks
for no more than is new, ``run.py`` answers the plan. Bundles themselves are fetched and checked
by the nodes, never here.
"""
