"""
StatefulSet → Pod, PersistentVolumeClaim: pods that keep their names and their storage.

Volumes are found and bound for the claims elsewhere.
"""
