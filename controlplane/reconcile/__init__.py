"""
How any controller is run: what it declares, and the one loop that runs it.

Also what several controllers must agree on, since none imports another: who owns
an object, what state a pod is in. What one controller alone knows does not belong here.
"""
