"""Keys wait once, are held once, and come back on time."""

from controlplane.reconcile.queue import Backoff, Queue, Timers
from tests.fakes.clock import FakeClock


def test_a_key_waits_once_however_often_it_is_added() -> None:
    queue: Queue[str] = Queue()
    for key in ("a", "b", "a"):
        queue.add(key)
    assert [queue.take(), queue.take(), queue.take()] == ["a", "b", None]


def test_a_key_added_while_worked_on_comes_back_after_it_is_done() -> None:
    queue: Queue[str] = Queue()
    queue.add("a")
    assert queue.take() == "a"
    queue.add("a")
    assert queue.take() is None
    queue.done("a")
    assert queue.take() == "a"
    queue.done("a")
    assert queue.take() is None


def test_timers_fire_in_order_with_one_timer_of_the_clock() -> None:
    clock, fired = FakeClock(), list[str]()
    timers: Timers[str] = Timers(clock, fired.append)
    timers.add("late", 10)
    timers.add("early", 1)
    timers.add("middle", 5)
    assert clock.timers == 1
    clock.advance(5)
    assert fired == ["early", "middle"]
    clock.advance(5)
    assert fired == ["early", "middle", "late"]
    assert clock.timers == 0


def test_only_the_earliest_time_of_a_key_counts() -> None:
    clock, fired = FakeClock(), list[str]()
    timers: Timers[str] = Timers(clock, fired.append)
    timers.add("a", 10)
    timers.add("a", 2)
    timers.add("a", 30)
    clock.advance(60)
    assert fired == ["a"]


def test_a_discarded_timer_does_not_fire() -> None:
    clock, fired = FakeClock(), list[str]()
    timers: Timers[str] = Timers(clock, fired.append)
    timers.add("a", 10)
    timers.discard("a")
    clock.advance(60)
    assert fired == []


def test_delays_double_up_to_the_longest_and_start_again_after_success() -> None:
    backoff: Backoff[str] = Backoff(1, 5, jitter=lambda: 0.0)
    assert [backoff.failed("a") for _ in range(4)] == [1, 2, 4, 5]
    backoff.forget("a")
    assert backoff.failed("a") == 1
    assert Backoff[str](1, 5, jitter=lambda: 1.0).failed("a") == 0.5
