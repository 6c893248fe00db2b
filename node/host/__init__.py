"""
The kernel and the disk: the only user of netlink, nft and mount.

Small verbs on what is; what should be is decided elsewhere.
"""
