"""
Admission policies of users, in CEL: what ValidatingAdmissionPolicies refuse and
MutatingAdmissionPolicies change.

A policy says what, its bindings say where and with which parameters. Sources: KEP-3488,
KEP-3962 and the API documents of admissionregistration.k8s.io/v1.
"""
