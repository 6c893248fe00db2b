"""
The Common Expression Language, as Kubernetes speaks it: conditions of users in the API.

An expression is parsed and compiled once, into closures, and evaluated often; while
nobody uses an expression, none of this is imported. Sources: the CEL specification
(cel-spec) and "Common Expression Language in Kubernetes".
"""
