"""
Another Kubernetes for the tests: upstream's own programs, built from their Go modules.

The programs are built only when asked (``make test-upstream``), for it takes many minutes; tests
that need them are skipped where they are not there. Nothing of Pinnace belongs in here.
"""
