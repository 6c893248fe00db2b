"""
Child processes: start, watch, restart with back-off, stop.

What the children do does not belong here.
"""
