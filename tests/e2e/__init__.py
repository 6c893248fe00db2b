"""Whole nodes: real containerd, real kubectl, a network namespace of their own."""
