"""
Local-path storage: claims of the provisioner ``rancher.io/local-path`` become folders of a node.

K3s's names and configuration, with a size that is enforced, online resize and snapshots.
Mounting a volume for a pod and counting what it holds is the kubelet's work, not ours.
"""
