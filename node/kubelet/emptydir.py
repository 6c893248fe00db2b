"""
emptyDir: a folder on the disk, in memory, or of huge pages. All of it blocks.

What is in memory is never larger than what the pod may use, and never goes to swap where
the kernel can promise that. Source: the API concept "Volumes", KEP-1967 (sizes).
"""

import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from controlplane.client.base import Object
from controlplane.objects import quantity
from node.kubelet import files, resources
from node.kubelet.base import Settings

_HUGE = "HugePages"
_PAGES = "hugepages-"  # of a resource's name


def make(pod: Object, path: Path, source: Mapping[str, Any], settings: Settings) -> None:
    """Idempotent. ``ValueError`` where the medium and what the pod asks for do not fit."""
    medium = source.get("medium") or ""
    if medium == "Memory":
        is_new = tmpfs(path, size=memory_size(pod, source, settings))
    elif medium.startswith(_HUGE):
        is_new = _mount(path, "hugetlbfs", f"pagesize={page_size(pod, medium)}")
    elif medium:
        raise ValueError(f"Pinnace does not support emptyDir with medium {medium}")
    else:
        is_new = not path.is_dir()
        path.mkdir(parents=True, exist_ok=True)
    if not is_new:
        return
    path.chmod(0o777)
    group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
    if group is not None:
        os.chown(path, -1, group)
        path.chmod(0o2777)


def memory_size(pod: Object, source: Mapping[str, Any], settings: Settings) -> int:
    """The smallest of what the node has, what the pod may use and what the volume asks for."""
    found = [
        quantity.value(settings.allocatable.get("memory", "0")),
        resources.of_pod(pod).memory_limit,
        quantity.value(source.get("sizeLimit") or "0"),
    ]
    return min((size for size in found if size > 0), default=0)


def page_size(pod: Object, medium: str) -> int:
    """Bytes; the pod has to ask for pages of that size, and for one size if none is named."""
    asked = set(_asked(pod))
    named = medium.removeprefix(_HUGE).removeprefix("-")
    if named:
        asked &= {quantity.value(named)}
    if not asked:
        raise ValueError(
            f"medium {medium}: hugePages storage requested, but there is no resource request for "
            "huge pages"
        )
    if len(asked) > 1:
        text = "can't be used if container requests multiple huge page sizes"
        raise ValueError(f"medium: {medium} {text}")
    return asked.pop()


def _asked(pod: Object) -> Iterator[int]:
    spec = pod["spec"]
    for part in [spec, *spec["containers"], *spec.get("initContainers", ())]:
        limits = part.get("resources") or {}
        for name in {**(limits.get("limits") or {}), **(limits.get("requests") or {})}:
            if name.startswith(_PAGES):
                yield quantity.value(name.removeprefix(_PAGES))


def tmpfs(path: Path, *, size: int = 0) -> bool:
    """Whether it was mounted now. ``size``: bytes; 0: as the kernel likes."""
    options = [f"size={size}"] if size else []
    try:
        return _mount(path, "tmpfs", ",".join([*options, "noswap"]))
    except OSError as err:
        if err.errno != errno.EINVAL:  # kernels before 6.4
            raise
        return _mount(path, "tmpfs", ",".join(options))


def _mount(path: Path, kind: str, options: str) -> bool:
    """Unless it is; after a reboot the folder is left but the mount is not."""
    path.mkdir(parents=True, exist_ok=True)
    if path.is_mount():
        return False
    files.mount(kind, path, kind, options=options)
    return True
