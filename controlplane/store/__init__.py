"""
The revisioned key-value log behind the API server, and its implementations.

It knows keys and bytes. What the bytes mean (kinds, labels, versions) does not
belong here.
"""
