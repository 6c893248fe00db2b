"""
Webhooks of users: what other programs fill in, refuse and convert.

Which webhook a request concerns is decided by pure rules; one caller speaks to all
of them. Sources: the API documents of admission.k8s.io/v1,
admissionregistration.k8s.io/v1 and of ConversionReview in apiextensions.k8s.io/v1.
"""
