"""
What every ``Slots`` must do: the contract of node/update/base.py, case by case.

A file ``test_….py`` gives the cases a fixture ``machine`` (see :class:`Machine`) and runs them::

    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
    async def test_slots(case: Case, machine: Machine) -> None:
        await case(machine)
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import pytest

from node.update.base import RefusedError, Slots
from node.update.version import parse

V1, V2, V3 = (parse(f"v1.36.{patch}+pinnace1") for patch in (3, 4, 5))


class PowerCut(BaseException):
    """The machine went dark in the middle of something."""


class Machine(Protocol):
    """A machine that runs V1 from its slot a; slot b is empty."""

    def bundle(self, version: str, *, board: str = "", key: str = "", damage: str = "") -> Path:
        """
        A new file. ``board`` "": this machine's; ``key`` "": one that it trusts.

        ``damage``: "", "truncated", "tampered" (its payload), "garbage" (no bundle at all).
        """
        ...

    async def start(self) -> Slots:
        """Power on, or begin again: what the boot loader does, then what the node makes of it."""
        ...

    def cut_after(self, writes: int) -> None:
        """
        Let the power go (:class:`PowerCut` out of whatever runs) after so many more writes.

        -1: never.
        """
        ...


Case = Callable[[Machine], Awaitable[None]]


def _nothing(_: int) -> None:
    pass


async def _install(slots: Slots, path: Path) -> None:
    await slots.install(await slots.check(path), _nothing)


async def _on_trial(machine: Machine, version: str = str(V2)) -> Slots:
    slots = await machine.start()
    await _install(slots, machine.bundle(version))
    await slots.try_once()
    return await machine.start()


async def a_fresh_machine_runs_one_slot_and_the_other_is_empty(machine: Machine) -> None:
    slots = await machine.start()
    running, other = await slots.running(), await slots.other()
    assert (running.name, running.version, running.bad) == ("a", V1, False)
    assert (other.name, other.version) == ("b", None)
    assert not await slots.on_trial()


async def what_is_installed_is_in_the_other_slot_and_not_started_by_itself(
    machine: Machine,
) -> None:
    slots = await machine.start()
    await _install(slots, machine.bundle(str(V2)))
    other = await slots.other()
    assert (other.version, other.bad) == (V2, False)
    assert (await slots.running()).version == V1
    again = await machine.start()
    assert (await again.running()).version == V1
    assert (await again.other()).version == V2
    assert not await again.on_trial()


async def installing_tells_percents_that_never_fall_and_end_with_a_hundred(
    machine: Machine,
) -> None:
    slots = await machine.start()
    told: list[int] = []
    await slots.install(await slots.check(machine.bundle(str(V2))), told.append)
    assert told == sorted(told)
    assert told[-1] == 100


async def a_checked_bundle_says_what_it_is(machine: Machine) -> None:
    slots = await machine.start()
    path = machine.bundle(str(V2))
    bundle = await slots.check(path)
    assert (bundle.version, bundle.board) == (V2, slots.board)
    assert (bundle.size, bundle.path) == (path.stat().st_size, path)
    assert (await slots.other()).version is None


async def a_tried_slot_runs_once_and_then_the_old_one_again(machine: Machine) -> None:
    slots = await _on_trial(machine)
    assert ((await slots.running()).name, (await slots.other()).name) == ("b", "a")
    assert await slots.on_trial()
    again = await machine.start()
    assert (await again.running()).name == "a"
    assert (await again.running()).version == V1
    assert not await again.on_trial()
    assert (await (await machine.start()).running()).name == "a"


async def a_committed_slot_is_the_one_to_start(machine: Machine) -> None:
    slots = await _on_trial(machine)
    await slots.commit()
    assert not await slots.on_trial()
    for _ in range(2):
        again = await machine.start()
        assert ((await again.running()).name, (await again.running()).version) == ("b", V2)
        assert not await again.on_trial()
        assert (await again.other()).version == V1


async def committing_a_second_time_changes_nothing(machine: Machine) -> None:
    slots = await _on_trial(machine)
    await slots.commit()
    await slots.commit()
    assert (await (await machine.start()).running()).name == "b"


async def a_try_that_is_cancelled_does_not_happen(machine: Machine) -> None:
    slots = await machine.start()
    await _install(slots, machine.bundle(str(V2)))
    await slots.try_once()
    await slots.cancel_try()
    again = await machine.start()
    assert (await again.running()).name == "a"
    assert not await again.on_trial()
    assert (await again.other()).version == V2


async def cancelling_where_nothing_is_tried_changes_nothing(machine: Machine) -> None:
    slots = await machine.start()
    await slots.cancel_try()
    assert (await (await machine.start()).running()).name == "a"


async def a_slot_that_was_left_can_be_marked_and_written_again(machine: Machine) -> None:
    await _on_trial(machine)
    slots = await machine.start()
    await slots.mark_bad()
    assert (await slots.other()).bad
    await _install(await machine.start(), machine.bundle(str(V3)))
    other = await (await machine.start()).other()
    assert (other.version, other.bad) == (V3, False)


async def after_a_commit_the_next_update_goes_to_the_first_slot(machine: Machine) -> None:
    await (await _on_trial(machine)).commit()
    slots = await _on_trial(machine, str(V3))
    running = await slots.running()
    assert (running.name, running.version) == ("a", V3)
    again = await machine.start()
    assert ((await again.running()).name, (await again.running()).version) == ("b", V2)


async def _refused(machine: Machine, path: Path) -> str:
    """The reason, either of the check or of the installation."""
    slots = await machine.start()
    with pytest.raises(RefusedError) as caught:
        await _install(slots, path)
    assert str(caught.value)
    assert "\n" not in str(caught.value)
    assert (await slots.running()).version == V1
    other = await slots.other()
    assert other.version is None or other.bad
    again = await machine.start()
    assert (await again.running()).name == "a"
    return caught.value.reason


async def a_bundle_of_another_board_is_refused(machine: Machine) -> None:
    assert await _refused(machine, machine.bundle(str(V2), board="another")) == "WrongBoard"


async def a_bundle_of_a_stranger_is_refused(machine: Machine) -> None:
    assert await _refused(machine, machine.bundle(str(V2), key="stranger")) == "BadSignature"


async def a_bundle_whose_payload_was_changed_is_refused(machine: Machine) -> None:
    assert await _refused(machine, machine.bundle(str(V2), damage="tampered")) == "Tampered"


async def a_bundle_that_is_not_whole_is_refused(machine: Machine) -> None:
    reason = await _refused(machine, machine.bundle(str(V2), damage="truncated"))
    assert reason in {"Truncated", "NotABundle", "BadSignature"}  # by what is left of it


async def what_is_no_bundle_is_refused(machine: Machine) -> None:
    assert await _refused(machine, machine.bundle(str(V2), damage="garbage")) == "NotABundle"


_MOST_WRITES = 200


async def a_power_cut_amid_an_installation_leaves_the_running_slot_as_it_was(
    machine: Machine,
) -> None:
    path = machine.bundle(str(V2))
    for writes in range(_MOST_WRITES):
        slots = await machine.start()
        machine.cut_after(writes)
        try:
            await _install(slots, path)
        except PowerCut:
            machine.cut_after(-1)
        else:
            machine.cut_after(-1)
            break
        again = await machine.start()
        assert ((await again.running()).name, (await again.running()).version) == ("a", V1)
        other = await again.other()
        assert other.bad or other.version in (None, V2)
    else:
        pytest.fail("the installation never came to its end")
    assert (await slots.other()).version == V2


async def a_power_cut_amid_choosing_starts_one_of_the_two_and_the_old_one_next(
    machine: Machine,
) -> None:
    slots = await machine.start()
    await _install(slots, machine.bundle(str(V2)))
    for writes in range(_MOST_WRITES):
        machine.cut_after(writes)
        try:
            await slots.try_once()
        except PowerCut:
            machine.cut_after(-1)
        else:
            machine.cut_after(-1)
            break
        again = await machine.start()
        tried = (await again.running()).name == "b"
        assert await again.on_trial() == tried
        slots = await machine.start()
        assert (await slots.running()).name == "a"
        assert not await slots.on_trial()
    else:
        pytest.fail("it was never chosen")
    assert (await (await machine.start()).running()).name == "b"


async def a_power_cut_amid_a_commit_leaves_one_committed_slot(machine: Machine) -> None:
    for writes in range(_MOST_WRITES):
        slots = await machine.start()
        if (await slots.running()).name == "b":
            return  # it was committed before the power went
        await _install(slots, machine.bundle(str(V2)))
        await slots.try_once()
        slots = await machine.start()
        machine.cut_after(writes)
        try:
            await slots.commit()
        except PowerCut:
            machine.cut_after(-1)
        else:
            machine.cut_after(-1)
            break
        first, second = await machine.start(), await machine.start()
        assert (await first.running()).name == (await second.running()).name
        assert not await second.on_trial()
    else:
        pytest.fail("it was never committed")
    assert (await (await machine.start()).running()).name == "b"


CASES: tuple[Case, ...] = (
    a_fresh_machine_runs_one_slot_and_the_other_is_empty,
    what_is_installed_is_in_the_other_slot_and_not_started_by_itself,
    installing_tells_percents_that_never_fall_and_end_with_a_hundred,
    a_checked_bundle_says_what_it_is,
    a_tried_slot_runs_once_and_then_the_old_one_again,
    a_committed_slot_is_the_one_to_start,
    committing_a_second_time_changes_nothing,
    a_try_that_is_cancelled_does_not_happen,
    cancelling_where_nothing_is_tried_changes_nothing,
    a_slot_that_was_left_can_be_marked_and_written_again,
    after_a_commit_the_next_update_goes_to_the_first_slot,
    a_bundle_of_another_board_is_refused,
    a_bundle_of_a_stranger_is_refused,
    a_bundle_whose_payload_was_changed_is_refused,
    a_bundle_that_is_not_whole_is_refused,
    what_is_no_bundle_is_refused,
    a_power_cut_amid_an_installation_leaves_the_running_slot_as_it_was,
    a_power_cut_amid_choosing_starts_one_of_the_two_and_the_old_one_next,
    a_power_cut_amid_a_commit_leaves_one_committed_slot,
)
