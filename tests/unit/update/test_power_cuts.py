"""Whenever the power goes: something that works is started, and nothing acknowledged is lost."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from node.update.request import Request
from node.update.state import Phase
from tests.fakes.update_world import World

V1, V2, V3 = (f"v1.36.{patch}+pinnace1" for patch in (3, 4, 5))
TICKS = 60
GOOD, BAD, DEAD = "good", "bad", "dead"


# A rename on a real disk may wait for it: these tests cut a power of their own.
MEMORY = next((folder for folder in ("/dev/shm",) if Path(folder).is_dir()), None)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as made:
        yield Path(made)


def world_of(folder: Path, kind: str) -> World:
    made = World(
        folder,
        bad=frozenset({V2} if kind == BAD else ()),
        dead=frozenset({V2} if kind == DEAD else ()),
    )
    url = str(made.machine.bundle(V2))
    made.request = Request(
        version=V2, plan="p", uid="u", url=url, soak_seconds=10, deadline_seconds=100
    )
    return made


def end(world: World) -> Phase | None:
    state = world.records.load()
    return state.phase if state is not None else None


@pytest.mark.parametrize(
    ("kind", "phase", "version"),
    [(GOOD, Phase.COMMITTED, V2), (BAD, Phase.ROLLED_BACK, V1), (DEAD, Phase.ROLLED_BACK, V1)],
)
def test_without_a_power_cut(folder: Path, kind: str, phase: Phase, version: str) -> None:
    world = world_of(folder, kind)
    world.run(3 * TICKS)
    assert end(world) is phase
    assert world.machine.version() == version
    assert (V2 in world.records.failed()) == (kind != GOOD)
    world.check()


@pytest.mark.parametrize("kind", [GOOD, BAD, DEAD])
def test_at_every_write(folder: Path, kind: str) -> None:
    whole = world_of(folder / "whole", kind)
    whole.run(3 * TICKS)
    for writes in range(whole.power.written):
        world = world_of(folder / str(writes), kind)
        world.run_with_cuts([writes], TICKS)
        world.check()
        expected = {Phase.COMMITTED, Phase.ROLLED_BACK} if kind == GOOD else {Phase.ROLLED_BACK}
        assert end(world) in expected, writes


# Who is alone dies amid the way back, and dies and the power goes after the node has written.
@example(kind=GOOD, cuts=[6, 22, 3], ticks=6, dies=frozenset({1, 6}))
@example(kind=GOOD, cuts=[6, 22, 0], ticks=6, dies=frozenset({5}))
@settings(max_examples=60)
@given(
    kind=st.sampled_from([GOOD, BAD, DEAD]),
    cuts=st.lists(st.integers(min_value=0, max_value=40), min_size=1, max_size=6),
    ticks=st.integers(min_value=5, max_value=TICKS),
    dies=st.frozensets(st.integers(min_value=1, max_value=6), max_size=3),
)
def test_again_and_again(kind: str, cuts: list[int], ticks: int, dies: frozenset[int]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as made:
        world = world_of(Path(made), kind)
        world.dies = dies
        world.run_with_cuts(cuts, ticks)
        world.run(3 * TICKS)
        world.check()
