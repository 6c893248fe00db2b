"""
Development tool: reads the Go types of Kubernetes and writes ``controlplane/objects/data``.

Run it when the served version changes: ``python -m controlplane.generate --help``.
Nothing imports it at run time, and no prose of the sources ends up in its output.
What the Go types do not say (plurals, verbs, short names) belongs in
:mod:`controlplane.objects.builtin`, code defaults in :mod:`controlplane.objects.defaults`.
"""
