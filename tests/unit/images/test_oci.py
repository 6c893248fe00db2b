"""The OCI writer: same input, same bytes, and a layout that says what it holds."""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from oci import File, Folder, Image, Link, archive, write

IMAGE = Image(
    names=("example.test/tool:1", "example.test/tool:latest"),
    entries={"bin/tool": File(b"#!x", 0o755), "bin/t": Link("tool"), "tmp": Folder(0o1777)},
    architecture="arm64",
    entrypoint=("/bin/tool",),
    command=("--help",),
    environment={"PATH": "/bin"},
    user="1000",
)


def files(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]


def blob(found: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    data = found["blobs/sha256/" + descriptor["digest"].removeprefix("sha256:")]
    assert hashlib.sha256(data).hexdigest() == descriptor["digest"].removeprefix("sha256:")
    assert len(data) == descriptor["size"]
    return data


def test_the_same_input_gives_the_same_bytes() -> None:
    assert archive([IMAGE]) == archive([IMAGE])


def test_every_name_leads_to_the_image() -> None:
    found = files(archive([IMAGE]))
    manifests = json.loads(found["index.json"])["manifests"]
    names = [m["annotations"]["io.containerd.image.name"] for m in manifests]
    assert names == list(IMAGE.names)
    manifest = json.loads(blob(found, manifests[0]))
    config = json.loads(blob(found, manifest["config"]))
    assert config["architecture"] == "arm64"
    assert config["config"] == {
        "Entrypoint": ["/bin/tool"],
        "Cmd": ["--help"],
        "Env": ["PATH=/bin"],
        "User": "1000",
    }


def test_the_layer_holds_the_files_with_their_folders() -> None:
    found = files(archive([IMAGE]))
    manifest = json.loads(blob(found, json.loads(found["index.json"])["manifests"][0]))
    config = json.loads(blob(found, manifest["config"]))
    layer = gzip.decompress(blob(found, manifest["layers"][0]))
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(layer).hexdigest()]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        members = {m.name: m for m in tar}
    assert list(members) == ["bin", "bin/t", "bin/tool", "tmp"]
    assert members["bin"].isdir()
    assert members["bin/t"].linkname == "tool"
    assert members["bin/tool"].mode == 0o755
    assert members["tmp"].mode == 0o1777


def test_a_layer_may_be_packed_by_somebody_else() -> None:
    def press(plain: Path, packed: Path) -> None:
        packed.write_bytes(b"packed:" + plain.read_bytes())

    buffer = io.BytesIO()
    write([IMAGE], buffer, press=press)
    found = files(buffer.getvalue())
    manifest = json.loads(blob(found, json.loads(found["index.json"])["manifests"][0]))
    assert manifest["layers"][0]["mediaType"].endswith("tar+zstd")
    layer = blob(found, manifest["layers"][0]).removeprefix(b"packed:")
    config = json.loads(blob(found, manifest["config"]))
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(layer).hexdigest()]
