"""What GRUB keeps, and what it decides by it."""

from contextlib import nullcontext
from pathlib import Path

import pytest
from appliance import grub

from node.update import boot

TEMPLATE = Path(__file__).parents[3] / "image-build/files/grub.cfg"


def test_a_fresh_state_is_what_the_node_reads(tmp_path: Path) -> None:
    path = tmp_path / "grubenv"
    path.write_bytes(grub.environment())
    assert boot.GrubEnv(path, nullcontext).read() == boot.State()


def test_all_of_the_state_lies_in_the_first_sector() -> None:
    made = grub.environment()
    assert len(made) == 1024
    assert made[512:] == b"#" * 512


def test_state_that_does_not_fit_in_a_sector_is_refused() -> None:
    with pytest.raises(ValueError, match="a sector has 512"):
        grub.environment({"primary": "a" * 500})


def test_the_arguments_of_the_kernel_come_into_the_configuration() -> None:
    made = grub.configuration(TEMPLATE, "panic=10 gpt").decode()
    assert "pinnace.slot=$1 $2 panic=10 gpt $extra;" in made
    assert "@" not in made


def test_a_try_is_taken_back_before_anything_is_started() -> None:
    lines = [line.strip() for line in TEMPLATE.read_text().splitlines()]
    assert lines.index("save_env --file $state try") < lines.index("start $trial pinnace.trial=1")
    assert lines.index("save_env --file $state tries") < lines.index("start $slot")


def test_the_configuration_uses_only_commands_that_are_built_in() -> None:
    provided = {
        "serial": "serial",
        "terminal_input": "terminal",
        "terminal_output": "terminal",
        "regexp": "regexp",
        "load_env": "loadenv",
        "save_env": "loadenv",
        "source": "configfile",
        "linux": "linux",
        "initrd": "linux",
        "boot": "boot",
        "echo": "echo",
        "sleep": "sleep",
        "reboot": "reboot",
        "[": "test",
    }
    syntax = {"if", "elif", "else", "fi", "set", "function", "start", "}", "then", "#", ""}
    for line in TEMPLATE.read_text().splitlines():
        words = [word.rstrip(";") for word in line.split() if word not in ("if", "elif")] or [""]
        first = words[0][:1] if words[0].startswith("#") else words[0]
        assert first in syntax or provided[first] in grub.MODULES, line


def test_the_node_writes_what_the_boot_loader_reads(tmp_path: Path) -> None:
    loader = boot.loader_of("x86-64", tmp_path)
    assert isinstance(loader, boot.GrubEnv)
    place = loader.path.relative_to(tmp_path)
    assert f"set state=$config/{place}\n" in TEMPLATE.read_text()
