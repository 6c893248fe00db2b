"""
What a user wants to see before an upgrade counts as good, looked at from here.

``objects.py`` reads ``spec.healthChecks``; one module for each kind of check looks once and says
why not; ``run.py`` has them all done at the same time and gives the verdict. When to look, how
often, and what follows is the plan's matter, not theirs. Imported by the first plan with checks.
"""
