"""
How any controller is run: what it declares, and the one loop that runs it.

Knowledge about single kinds does not belong here.
"""
