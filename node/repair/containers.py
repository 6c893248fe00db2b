"""
containerd's memory, and what containers left behind: mounts, addresses, loop devices.

While a container runs, what belongs to it is in use, whether or not the node runs; nothing of
that is stale then.
"""

from collections.abc import Iterator
from pathlib import Path

from node import killall
from node.config import from_settings
from node.host import mountinfo, mounts
from node.repair import bolt
from node.repair.base import Finding, Place, fine, wrong

AREA = "containers"
_DATABASES = (
    "io.containerd.metadata.v1.bolt/meta.db",
    "io.containerd.snapshotter.v1.overlayfs/metadata.db",
)


def look(place: Place) -> Iterator[Finding]:
    config = from_settings(place.settings)
    folder = config.agent_dir / "containerd"
    if place.running:
        return
    running = killall.shims(config.containerd_socket)
    broken = [(name, why) for name in _DATABASES if (why := bolt.wrong_with(folder / name))]
    if broken:
        name, why = broken[0]
        yield wrong(
            AREA,
            f"containerd's memory is damaged: {folder / name}: {why}",
            would="stop all containers, set images and containers aside, import images anew; "
            "pods are made again when the node starts",
            mend=lambda: _begin_anew(place, folder),
        )
    elif running:
        yield fine(AREA, f"{len(running)} processes of pods run on")
    else:
        yield fine(AREA, "none run")
    if not running and not broken:
        yield from _leftovers(place)


def _begin_anew(place: Place, folder: Path) -> str:
    killall.stop(from_settings(place.settings), lambda _: None)
    place.set_aside(folder)
    imported = place.data / "agent" / "images.json"
    if imported.exists():
        place.set_aside(imported)
    return f"images and containers are in {place.aside}; images without a file are pulled again"


def _leftovers(place: Place) -> Iterator[Finding]:
    config = from_settings(place.settings)
    below = (config.run_dir, config.pods_dir)
    mounted = [
        entry.point
        for entry in mountinfo.mounts()
        if any(entry.point.is_relative_to(folder) for folder in below)
    ]
    addresses = killall.stale_addresses()
    if not mounted and not addresses:
        return
    yield wrong(
        AREA,
        f"{len(mounted)} mounts and {len(addresses)} addresses belong to containers that are gone",
        would="unmount them and give the addresses back",
        mend=lambda: _clear(mounted, addresses),
    )


def _clear(mounted: list[Path], addresses: list[Path]) -> str:
    for point in reversed(mounted):
        mounts.unmount(point, detach=True)
    for note in addresses:
        note.unlink(missing_ok=True)
    return "unmounted, and the addresses are free"
