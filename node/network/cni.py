"""
The CNI configuration that containerd gives to the plugins for each sandbox.

The bridge has the name ``cni0`` as in K3s, and its first address is the pods' way
out. Host ports are not left to the portmap plugin, because the one in Debian 12
can only write iptables rules: :mod:`node.proxy` programs them.

Source: the CNI specification 1.0.0; the plugins' own documentation.
"""

import json
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path

from node.host.files import write_if_changed

FILE_NAME = "10-pinnace.conflist"
BRIDGE = "cni0"
# Where containerd's own archive and the distributions put the plugins.
PLUGIN_DIRS = (Path("/opt/cni/bin"), Path("/usr/lib/cni"), Path("/usr/libexec/cni"))


def find_plugins(is_program: Callable[[Path], bool] = Path.is_file) -> Path | None:
    """The first folder that has the plugins that we need."""
    for folder in PLUGIN_DIRS:
        if all(is_program(folder / name) for name in ("bridge", "host-local", "loopback")):
            return folder
    return None


def conflist(pod_cidr: IPv4Network, *, mtu: int, state_dir: Path, bandwidth: bool) -> str:
    """
    The text of the file. ``state_dir``: where host-local keeps the addresses in use.

    ``bandwidth``: the plugin is installed; it does nothing to a pod without the
    kubernetes.io/ingress-bandwidth and egress-bandwidth annotations.
    """
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isDefaultGateway": True,
        "forceAddress": True,  # the node may have had another podCIDR before
        "hairpinMode": True,
        "ipMasq": False,  # that would be iptables; see node.network.plan
        "mtu": mtu,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": str(pod_cidr)}]],
            "dataDir": str(state_dir),
        },
    }
    plugins: list[dict[str, object]] = [bridge]
    if bandwidth:
        plugins.append({"type": "bandwidth", "capabilities": {"bandwidth": True}})
    body = {"name": "cbr0", "cniVersion": "1.0.0", "plugins": plugins}
    return json.dumps(body, indent=2) + "\n"


def write_conflist(folder: Path, text: str) -> bool:
    """
    Put the file where containerd looks; True: it was not there in this form before.

    Blocks on the disk: call it in a thread.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return write_if_changed(folder / FILE_NAME, text, mode=0o600)
