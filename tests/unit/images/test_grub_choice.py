"""
Which slot GRUB starts, decided by its own configuration.

GRUB's language is the shell's but for a few commands, so that bash runs the real file here, with
functions in place of those. What GRUB itself makes of it, the tests of a booted image show.
"""

import subprocess
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from appliance import grub

from node.update import boot

TEMPLATE = Path(__file__).parents[3] / "image-build/files/grub.cfg"
# `set` of bash does something else; `[`, `if` and functions are the same.
_SHELL = r"""
function set { eval "${1%%=*}=\${1#*=}"; }
function serial { return 1; }
function regexp { disk=hd0; }
function load_env {
  shift 2
  for name in "$@"; do
    if grep -q "^$name=" "$FOLDER/grubenv"; then
      eval "$name=$(sed -n "s/^$name=//p" "$FOLDER/grubenv")"
    fi
  done
}
function save_env {
  [ -e "$FOLDER/read-only" ] && return 1
  sed -i "s/^$3=.*/$3=${!3}/" "$FOLDER/grubenv"
}
function linux { [ ! -e "$FOLDER/no-${root##*,}" ] && started=$2\ $3; }
function initrd { return 0; }
function boot { echo "START $started"; exit 0; }
function sleep { :; }
function reboot { echo REBOOT; exit 0; }
root=hd0,gpt1
"""


@dataclass
class Loader:
    """A config partition and what stands on it."""

    folder: Path
    env: boot.GrubEnv = field(init=False)

    def __post_init__(self) -> None:
        self.env = boot.GrubEnv(self.folder / "grubenv", nullcontext)
        self.env.path.write_bytes(grub.environment())

    def be(self, state: boot.State) -> None:
        self.env.write(state)

    def mark(self, names: Iterable[str]) -> None:
        for name in names:
            (self.folder / name).touch()

    def start(self) -> str:
        """``a``, ``b trial``, or ``reboot``."""
        configuration = grub.configuration(TEMPLATE, "").decode()
        done = subprocess.run(
            ["bash", "-c", _SHELL + configuration],
            capture_output=True,
            text=True,
            check=True,
            env={"FOLDER": str(self.folder), "PATH": "/usr/bin:/bin"},
        )
        last = done.stdout.splitlines()[-1]
        if last == "REBOOT":
            return "reboot"
        _, slot, *further = last.split()
        trial = " trial" if "pinnace.trial=1" in further else ""
        return slot.removeprefix("pinnace.slot=") + trial


@pytest.fixture
def loader(tmp_path: Path) -> Loader:
    return Loader(tmp_path)


def test_a_fresh_machine_starts_its_first_slot(loader: Loader) -> None:
    assert loader.start() == "a"
    assert loader.env.read() == boot.State()


def test_a_slot_is_tried_once(loader: Loader) -> None:
    loader.be(boot.State(try_once="b"))
    assert [loader.start() for _ in range(3)] == ["b trial", "a", "a"]


def test_a_try_that_cannot_be_taken_back_is_not_made(loader: Loader) -> None:
    loader.be(boot.State(try_once="b"))
    loader.mark(["read-only"])
    assert [loader.start() for _ in range(3)] == ["a", "a", "a"]


def test_a_slot_to_try_that_cannot_be_loaded_gives_way_at_once(loader: Loader) -> None:
    loader.be(boot.State(try_once="b"))
    loader.mark(["no-gpt3"])
    assert loader.start() == "a"
    assert loader.env.read().try_once == ""


@pytest.mark.parametrize(("primary", "other"), [("a", "b"), ("b", "a")])
def test_after_three_starts_that_nobody_called_good_the_other_slot_has_its_turn(
    loader: Loader, primary: str, other: str
) -> None:
    loader.be(boot.State(primary=primary, good=frozenset("ab")))
    turns = [loader.start() for _ in range(8)]
    assert turns == [primary] * 3 + [other] * 3 + [primary] * 2


def test_a_slot_that_was_never_good_has_no_turn(loader: Loader) -> None:
    loader.be(boot.State(primary="a", good=frozenset("a")))
    assert [loader.start() for _ in range(6)] == ["a"] * 6


def test_a_system_that_came_up_is_started_for_ever(loader: Loader) -> None:
    loader.be(boot.State(primary="b", good=frozenset("ab")))
    for _ in range(6):
        assert loader.start() == "b"
        boot.change(loader.env, lambda state: boot.well(state, "b"))


def test_the_other_slot_goes_on_once_it_came_up_in_its_turn(loader: Loader) -> None:
    loader.be(boot.State(primary="b", good=frozenset("ab")))
    assert [loader.start() for _ in range(4)] == ["b", "b", "b", "a"]
    for _ in range(3):
        boot.change(loader.env, lambda state: boot.well(state, "a"))
        assert loader.start() == "a"


def test_a_primary_slot_that_cannot_be_loaded_gives_way_at_once(loader: Loader) -> None:
    loader.be(boot.State(primary="b", good=frozenset("ab")))
    loader.mark(["no-gpt3"])
    assert loader.start() == "a"


def test_a_slot_that_is_not_good_is_not_started_in_place_of_another(loader: Loader) -> None:
    loader.be(boot.State(primary="a", good=frozenset("a"), bad=frozenset("b")))
    loader.mark(["no-gpt2"])
    assert loader.start() == "reboot"


def test_without_any_slot_the_machine_starts_anew(loader: Loader) -> None:
    loader.be(boot.State(good=frozenset("ab")))
    loader.mark(["no-gpt2", "no-gpt3"])
    assert loader.start() == "reboot"


def test_a_state_that_cannot_be_read_starts_the_first_slot(loader: Loader) -> None:
    loader.env.path.write_bytes(b"\xff" * 1024)
    assert loader.start() == "a"


def test_a_state_that_cannot_be_read_starts_the_second_slot_where_the_first_is_empty(
    loader: Loader,
) -> None:
    loader.env.path.write_bytes(b"\xff" * 1024)
    loader.mark(["no-gpt2"])
    assert loader.start() == "b"
