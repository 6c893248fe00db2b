"""The version that this program says it is, in the one place where a build of a release puts it."""

# Kubernetes' own form (`kubectl version`, nodes' kubeletVersion), with ours behind the plus.
VERSION = "v1.36.3+pinnace1"
