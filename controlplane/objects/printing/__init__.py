"""
What ``kubectl get`` shows: for each built-in kind its columns and the cells of a row.

A file for each family of kinds; a row is a pure function of the object and the
time. Which printer a kind has, and the Table around the rows, stand in
:mod:`controlplane.objects.tables`. Nothing here is stored or decided upon.
"""
