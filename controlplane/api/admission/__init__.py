"""
Built-in admission plugins: what they fill in, what they refuse.

One noun a file, named after kube-apiserver's plugins; their order stands in
``registry.py``. Webhooks and policies of users, and what belongs to the shape
of an object (defaults, validation), are elsewhere.
"""
