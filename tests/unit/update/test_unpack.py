"""A package that is not what it says is refused before anything of it is a slot."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
from appliance.package import pins_of

from node.update import unpack

ABOUT = {
    "size": 0,
    "version": "v1.36.3+pinnace1",
    "board": "package-amd64",
    "epoch": 0,
    "pythons": ["3.11", "3.13"],
    "wheels": 1,
}


def _wheel(*places: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for place in places:
            archive.writestr(place, "x = 1\n")
    return buffer.getvalue()


def _archive(*members: tuple[str, bytes]) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    buffer.seek(0)
    return buffer


def _about(**changed: object) -> tuple[str, bytes]:
    return unpack.ABOUT, json.dumps(ABOUT | changed).encode()


START = ("start", b"#!/bin/sh\n")


def test_a_wheel_goes_to_each_python_that_can_run_it(tmp_path: Path) -> None:
    stream = _archive(
        _about(wheels=4),
        START,
        ("wheels/a-1-py3-none-any.whl", _wheel("a.py", "a-1.data/scripts/a", "a/tests/t.py")),
        ("wheels/b-1-cp311-cp311-manylinux2014_x86_64.whl", _wheel("b.py")),
        ("wheels/b-1-cp313-cp313-manylinux2014_x86_64.whl", _wheel("b.py")),
        ("wheels/c-1-cp311-abi3-manylinux2014_x86_64.whl", _wheel("c-1.data/platlib/c.py")),
    )
    told: list[int] = []
    about = unpack.unpack(stream, tmp_path / "slot", told.append)
    assert about.version == ABOUT["version"]
    assert told == [25, 50, 75, 99]
    for python in ("3.11", "3.13"):
        site = unpack.packages_of(tmp_path / "slot", python)
        found = sorted(p.relative_to(site).as_posix() for p in site.rglob("*.py"))
        assert found == ["a.py", "b.py", "c.py"]


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([], "not complete"),
        ([START], "begins with start"),
        ([_about(), START], "not complete"),
        ([_about(version=None, pythons=3)], "cannot be read"),
        ([_about(), START, ("wheels/../x.whl", _wheel("a.py"))], "no place"),
        ([_about(), START, ("etc/passwd", b"root")], "no place"),
        ([_about(), START, ("wheels/a-1-py3-none-any.whl", b"PK")], "damaged"),
        ([_about(), START, ("wheels/a-1-py3-none-any.whl", _wheel("../a.py"))], "leaves"),
        ([_about(), START, ("wheels/a-1-py3-none-any.whl", _wheel("/etc/a.py"))], "leaves"),
        ([_about(), START, ("wheels/a-1-cp312-cp312-x.whl", _wheel("a.py"))], "for none of"),
    ],
)
def test_what_is_no_package_is_refused(
    members: list[tuple[str, bytes]], why: str, tmp_path: Path
) -> None:
    with pytest.raises(unpack.PackageError, match=why):
        unpack.unpack(_archive(*members), tmp_path / "slot", lambda _: None)
    assert {path.name for path in tmp_path.iterdir()} == {"slot"}


def test_a_link_in_a_package_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(unpack.ABOUT)
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    buffer.seek(0)
    with pytest.raises(unpack.PackageError, match="is no file"):
        unpack.unpack(buffer, tmp_path / "slot", lambda _: None)


LOCK = """\
aiohttp==3.14.5 \\
    --hash=sha256:01 \\
    --hash=sha256:02
cffi==2.1.1 ; platform_python_implementation != 'PyPy' \\
    --hash=sha256:03
helm-python-sdk==0.2.2 ; platform_machine == 'aarch64' or platform_machine == 'x86_64' \\
    --hash=sha256:04
win-inet-pton==1.1.0 ; sys_platform == 'win32' \\
    --hash=sha256:05
"""


@pytest.mark.parametrize(
    ("machine", "names"),
    [
        ("x86_64", ["aiohttp", "cffi", "helm-python-sdk"]),
        ("armv7l", ["aiohttp", "cffi"]),
    ],
)
def test_a_lock_is_read_for_the_machine_that_the_package_is_for(
    machine: str, names: list[str]
) -> None:
    lines = list(pins_of(LOCK, machine))
    assert [line.partition("==")[0] for line in lines if "==" in line] == names
    assert not any(";" in line for line in lines)
    assert next(line for line in lines if "==" not in line) == "    --hash=sha256:01 \\\n"
