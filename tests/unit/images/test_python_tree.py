"""How the program and its packages are laid out."""

from pathlib import Path

import pytest
from appliance import python_tree

from controlplane.objects import version
from controlplane.objects.openapi_prose import Descriptions

CLASS = '''\
"""Generated."""
from pydantic import BaseModel

class V1Thing(BaseModel):
    """A thing.

Attributes:
    size: how large
    """
    size: int = Field(None, description="How large it is.")
    openapi_types = {"size": "int"}
'''


def test_descriptions_are_read_as_ever_from_what_is_left_of_a_class(tmp_path: Path) -> None:
    (tmp_path / "v1_thing.py").write_text(python_tree._prose(CLASS))
    (tmp_path / "v1_other.py").write_text(python_tree._prose("x = 1\n"))
    descriptions = Descriptions(tmp_path)
    prose, fields = descriptions.of("io.k8s.api.core.v1.Thing")
    assert prose == "A thing."
    assert fields == {"size": "How large it is."}
    assert descriptions.of("io.k8s.api.core.v1.Other") == ("", {})


def test_importing_such_a_class_says_that_it_is_not_there(tmp_path: Path) -> None:
    text = python_tree._prose(CLASS)
    assert text.startswith("raise ImportError(")
    compile(text, "v1_thing.py", "exec")


def test_what_a_wheel_holds_twice_is_there_once(tmp_path: Path) -> None:
    data = b"x" * (2 << 20)
    for name in ("lib.so", "lib.so.0", "lib.so.0.1"):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "other.so").write_bytes(data[:-1] + b"y")
    python_tree.deduplicate(tmp_path)
    assert (tmp_path / "lib.so.0.1").readlink() == Path("lib.so")
    assert (tmp_path / "lib.so.0").read_bytes() == data
    assert not (tmp_path / "other.so").is_symlink()


def test_a_release_says_its_own_version_and_nothing_else_changes(tmp_path: Path) -> None:
    module = tmp_path / "version.py"
    before = Path(version.__file__).read_text()
    module.write_text(before)
    python_tree.stamp(module, "v1.99.0+pinnace7")
    assert module.read_text() == before.replace(version.VERSION, "v1.99.0+pinnace7")
    module.write_text("nothing of the kind\n")
    with pytest.raises(python_tree.PythonError, match="says no version"):
        python_tree.stamp(module, "v1.99.0+pinnace7")
