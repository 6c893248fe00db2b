"""
Where things lie. Light: it is all that most boots load, and no boot is faster than what it loads.
"""

from dataclasses import dataclass
from pathlib import Path

CONFIG_NAME = "pinnace.yaml"
MANIFESTS_NAME = "manifests"
STATUS_NAME = "status.txt"
AUTHORIZED_KEYS = "root/.ssh/authorized_keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    partition: Path = Path("/boot/pinnace")  # where the one with label PINNACE is mounted
    root: Path = Path("/")
    data: Path = Path("/var/lib/pinnace")
    run: Path = Path("/run/pinnace-boot")
    sys: Path = Path("/sys")
    device_tree: Path = Path("/proc/device-tree")

    @property
    def memory(self) -> Path:
        """What is to be known again at later boots; the same for both slots."""
        return self.data / "appliance"

    @property
    def summary(self) -> Path:
        return self.root / "etc/pinnace/appliance.json"

    @property
    def result(self) -> Path:
        """Of this boot, for the status."""
        return self.run / "firstboot.json"
