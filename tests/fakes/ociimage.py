"""A minimal writer of OCI image layouts: one layer, one platform, a tar that containerd imports."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
_OCI = "application/vnd.oci.image"


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    tar.addfile(info, io.BytesIO(data))


def layer(files: Mapping[str, bytes | str], folders: tuple[str, ...]) -> bytes:
    """A ``str`` is the target of a symbolic link; every file is executable."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for folder in folders:
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(info)
        for name, content in files.items():
            if isinstance(content, str):
                link = tarfile.TarInfo(name)
                link.type, link.linkname = tarfile.SYMTYPE, content
                tar.addfile(link)
            else:
                _add(tar, name, content, 0o755)
    return out.getvalue()


def write_image(
    path: Path,
    reference: str,
    files: Mapping[str, bytes | str],
    *,
    folders: tuple[str, ...] = (),
    config: Mapping[str, Any] | None = None,
) -> None:
    """Write the tar at ``path``; ``config`` is the image configuration's ``config`` part."""
    blobs: dict[str, bytes] = {}

    def blob(data: bytes, media: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}

    top_layer = blob(layer(files, folders), f"{_OCI}.layer.v1.tar")
    about = {
        "architecture": _ARCH,
        "os": "linux",
        "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": [top_layer["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": blob(json.dumps(about).encode(), f"{_OCI}.config.v1+json"),
        "layers": [top_layer],
    }
    top = blob(json.dumps(manifest).encode(), f"{_OCI}.manifest.v1+json")
    top["annotations"] = {"io.containerd.image.name": reference}
    top["platform"] = {"architecture": _ARCH, "os": "linux"}
    index = {"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json", "manifests": [top]}
    with tarfile.open(path, "w") as tar:
        _add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(tar, "index.json", json.dumps(index).encode())
        for name, data in blobs.items():
            _add(tar, name, data)


PASSWD = b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n"
GROUP = b"root:x:0:\nuser:x:1000:\n"


def busybox_files() -> dict[str, bytes | str]:
    """Debian's static busybox with a link for each of its programs, and catatonit as /pause."""
    files: dict[str, bytes | str] = {"bin/busybox": Path("/bin/busybox").read_bytes()}
    for program in _PROGRAMS.split():
        files[f"bin/{program}"] = "busybox"
    files["pause"] = Path("/usr/bin/catatonit").read_bytes()
    files["etc/passwd"], files["etc/group"] = PASSWD, GROUP
    return files


FOLDERS = ("bin", "etc", "tmp", "root", "home", "data")
_PROGRAMS = (
    "sh cat echo sleep ls id env date true false mkdir touch rm cp mv ln stat wc head tail grep "
    "sed awk nc wget httpd hostname test printf kill ps dd mount umount readlink seq sync chmod "
    "chown tr sort find xargs trap usleep pwd whoami tar du df uname"
)
