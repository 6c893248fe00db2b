"""
The controllers, one module for each, named after what it writes.

Pure functions from an object, indexed reads and the time to a list of writes.
No I/O, no task, and no controller imports another.
"""
