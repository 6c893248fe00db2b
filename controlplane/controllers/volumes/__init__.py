"""
Volumes that outlive pods: claims are bound to volumes, made for pods, and grow.

Making and deleting what is behind a volume is the provisioner's work, never done here.
"""
