"""
The rules for built-in kinds, a file for each family of kinds; each returns field errors.

Here belongs what a value must look like and how it may change. What a rule
would have to look up elsewhere (a free address, a quota, a class that exists)
belongs to admission; types and required fields come from the schema. The way
in is :mod:`controlplane.objects.validate`.
"""
