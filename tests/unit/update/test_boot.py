"""Both boot loaders keep one state, change it by one sector, and answer RAUC."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from appliance import grub

from node.update import boot
from node.update.boot import Bootloader, GrubEnv, State, TryBoot


@dataclass
class Partition:
    """Says how often it was made writable, and refuses where it was not."""

    folder: Path
    unlocked: int = 0
    make: Callable[["Partition"], Bootloader] = field(default=lambda it: it.grub())

    @contextlib.contextmanager
    def unlock(self) -> Iterator[None]:
        self.unlocked += 1
        yield

    def grub(self) -> GrubEnv:
        return GrubEnv(self.folder / "grubenv", self.unlock)

    def pi(self) -> TryBoot:
        return TryBoot(self.folder / "autoboot.txt", self.unlock)

    @property
    def loader(self) -> Bootloader:
        return self.make(self)

    @property
    def content(self) -> bytes:
        [path] = self.folder.iterdir()
        return path.read_bytes()


@pytest.fixture(params=[Partition.grub, Partition.pi], ids=["grub", "pi"])
def partition(request: pytest.FixtureRequest, tmp_path: Path) -> Partition:
    made = Partition(tmp_path, make=request.param)
    made.loader.write(State())
    made.unlocked = 0
    return made


ALL = [
    State(primary=primary, try_once=tried, good=good | {primary}, bad=bad - {primary, tried})
    for primary, tried, good, bad in itertools.product(
        "ab", ["", "a", "b"], [frozenset("a"), frozenset("ab")], [frozenset(), frozenset("b")]
    )
    if tried != primary
]


@pytest.mark.parametrize("state", ALL)
def test_what_is_written_is_read_again(partition: Partition, state: State) -> None:
    partition.loader.write(state)
    assert partition.loader.read() == state


def test_a_machine_without_a_file_starts_the_first_slot(partition: Partition) -> None:
    for path in partition.folder.iterdir():
        path.unlink()
    assert partition.loader.read() == State()
    boot.change(partition.loader, lambda state: boot.committed(state, "b"))
    assert partition.loader.read().primary == "b"


def test_a_file_that_is_damaged_is_read_as_none_and_written_whole(partition: Partition) -> None:
    [path] = partition.folder.iterdir()
    path.write_bytes(b"\xff" * 700)
    assert partition.loader.read() == State()
    partition.loader.write(State(primary="b", good=frozenset("ab")))
    assert partition.loader.read() == State(primary="b", good=frozenset("ab"))


def test_a_change_differs_from_the_old_state_in_the_first_sector_only(
    partition: Partition,
) -> None:
    before = partition.content
    boot.change(partition.loader, lambda state: boot.chosen(state, "b"))
    after = partition.content
    assert len(before) == len(after)
    assert before[:512] != after[:512]
    assert before[512:] == after[512:]


def test_nothing_is_written_where_nothing_changes(partition: Partition) -> None:
    boot.change(partition.loader, boot.unchosen)
    assert partition.unlocked == 0
    boot.change(partition.loader, lambda state: boot.committed(state, "b"))
    assert partition.unlocked == 1


def test_a_bad_slot_is_not_tried() -> None:
    state = boot.condemned(boot.chosen(State(), "b"), "b")
    assert not state.try_once
    assert state.bad == {"b"}
    with pytest.raises(ValueError, match="cannot be tried"):
        boot.chosen(state, "b")
    assert boot.chosen(boot.usable(state, "b"), "b").try_once == "b"


def test_the_slot_that_the_machine_starts_from_cannot_be_bad() -> None:
    with pytest.raises(ValueError, match="cannot be bad"):
        boot.condemned(State(primary="b"), "b")


def test_a_slot_that_was_written_and_not_committed_is_no_way_out() -> None:
    state = boot.usable(boot.condemned(State(good=frozenset("ab")), "b"), "b")
    assert state.good == {"a"}
    assert not state.bad
    assert boot.committed(state, "b").good == {"a", "b"}


def test_coming_up_counts_anew_but_does_not_go_back_to_a_dead_slot() -> None:
    state = State(primary="b", tries=2)
    assert boot.well(state, "b").tries == 0
    assert boot.well(replace(state, tries=4), "a").tries == boot.MOST_TRIES


def test_raucs_questions_are_answered(partition: Partition) -> None:
    loader = partition.loader

    def said(*words: str) -> str:
        return boot.answer(words, loader, "a")

    assert said("get-current") == "a"
    assert said("get-primary") == "a"
    assert said("get-state", "b") == "good"
    assert said("set-state", "b", "bad") == ""
    assert said("get-state", "b") == "bad"
    assert said("set-primary", "b") == ""
    assert (said("get-primary"), said("get-state", "b")) == ("b", "good")
    assert loader.read() == State(try_once="b")


@pytest.mark.parametrize(
    "words", [["set-state", "c", "bad"], ["set-state", "b", "so-so"], ["get-primary", "a"], []]
)
def test_what_rauc_does_not_ask_is_refused(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not understood"):
        boot.answer(words, Partition(tmp_path).grub(), "a")


# GRUB


def test_the_environment_of_a_new_image_is_understood(tmp_path: Path) -> None:
    partition = Partition(tmp_path)
    (tmp_path / "grubenv").write_bytes(grub.environment())
    assert partition.grub().read() == State()
    partition.grub().write(State(try_once="b"))
    assert len(partition.content) == 1024


def test_variables_of_others_stay(tmp_path: Path) -> None:
    partition = Partition(tmp_path)
    block = b"# GRUB Environment Block\nsaved_entry=x=1\nprimary=b\n".ljust(1024, b"#")
    (tmp_path / "grubenv").write_bytes(block)
    boot.change(partition.grub(), lambda state: boot.committed(state, "a"))
    assert b"\nsaved_entry=x=1\n" in partition.content
    assert b"\nprimary=a\n" in partition.content


def test_what_does_not_fit_in_one_sector_is_not_written(tmp_path: Path) -> None:
    partition = Partition(tmp_path)
    block = b"# GRUB Environment Block\n" + b"x=" + b"y" * 450 + b"\n"
    (tmp_path / "grubenv").write_bytes(block.ljust(1024, b"#"))
    with pytest.raises(boot.BootError, match="one sector"):
        partition.grub().write(State())
    assert partition.content == block.ljust(1024, b"#")


def test_grub_takes_a_try_back_itself(tmp_path: Path) -> None:
    loader = Partition(tmp_path).grub()
    loader.write(State(try_once="b"))
    assert boot.leave(loader) == ("systemctl", "reboot")
    assert loader.read().try_once == "b"


# Raspberry Pi


def test_the_firmwares_file_is_as_its_documentation_wants_it(tmp_path: Path) -> None:
    partition = Partition(tmp_path)
    partition.pi().write(State(primary="b", good=frozenset("ab")))
    lines = [line for line in partition.content.decode().splitlines() if line]
    assert [line for line in lines if not line.startswith("#")] == [
        "[all]",
        "tryboot_a_b=1",
        "boot_partition=3",
        "[tryboot]",
        "boot_partition=2",
    ]
    assert len(partition.content) == 512


def test_the_firmware_starts_what_is_tried_until_that_is_taken_back(tmp_path: Path) -> None:
    partition = Partition(tmp_path)
    loader = partition.pi()
    loader.write(State(try_once="b"))
    assert b"\n[all]\ntryboot_a_b=1\nboot_partition=3\n" in partition.content
    assert boot.leave(loader) == ("systemctl", "reboot")
    assert loader.read() == State(try_once="b")
    boot.change(loader, boot.unchosen)
    assert b"\n[all]\ntryboot_a_b=1\nboot_partition=2\n" in partition.content


def test_a_number_that_was_written_by_hand_is_believed(tmp_path: Path) -> None:
    partition = Partition(tmp_path)
    loader = partition.pi()
    loader.write(State(try_once="b"))
    text = partition.content.replace(b"boot_partition=3", b"boot_partition=2", 1)
    loader.path.write_bytes(text)
    assert loader.read() == State()
