"""What only a debugger reads is cut off; what is left loads."""

import ctypes
import shutil
import struct
from pathlib import Path

import orjson
from appliance import elf


def library() -> Path:
    """A shared library that this machine's Python loads."""
    return next(Path(orjson.__file__).parent.glob("*.so"))


def padded(folder: Path, name: str) -> Path:
    """With something behind its segments, as debuggers' data lie."""
    path = folder / name
    shutil.copyfile(library(), path)
    with path.open("ab") as file:
        file.write(b"debug" * 1000)
    return path


def test_a_library_is_cut_behind_its_segments_and_still_loads(tmp_path: Path) -> None:
    path = padded(tmp_path, "x.so")
    before = path.stat().st_size
    saved = elf.strip(path)
    assert saved >= 5000
    assert path.stat().st_size == before - saved
    ctypes.PyDLL(str(path))


def test_cutting_again_changes_nothing(tmp_path: Path) -> None:
    path = padded(tmp_path, "x.so")
    elf.strip(path)
    once = path.read_bytes()
    assert elf.strip(path) == 0
    assert path.read_bytes() == once
    assert struct.unpack_from("<Q", once, 40) == (0,)


def test_what_is_no_library_stays_as_it_is(tmp_path: Path) -> None:
    for name, data in (("text.so", b"/* GNU ld script */"), ("small.so", b"\x7fELF\x02\x01")):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "link.so").symlink_to("text.so")
    assert elf.strip_all(tmp_path) == 0
    assert (tmp_path / "text.so").read_bytes() == b"/* GNU ld script */"


def test_all_libraries_of_a_folder_are_cut(tmp_path: Path) -> None:
    padded(tmp_path, "a.so")
    padded(tmp_path, "b.cpython-313-x86_64-linux-gnu.so.1")
    assert elf.strip_all(tmp_path) >= 10000
