"""
The node daemon and the agent: one daemon on each machine.

It meets the control plane at the API; of :mod:`controlplane` only ``objects`` and
``client`` may be imported, children are started by name.
"""
