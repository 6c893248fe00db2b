"""What was issued or begun under one clock, judged under another: in the years between, nothing."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controlplane.api.tokens import Claims, Reference, ServiceAccountTokens, TokenError
from controlplane.client.clock import WallClock
from controlplane.controllers.daemonset.backoff import Replacements
from controlplane.controllers.job.failures import delay_left
from controlplane.objects.meta import rfc3339
from controlplane.objects.moment import BUILD, Moment
from controlplane.pki.certificates import key_pem, new_key
from controlplane.reconcile import pods
from node.kubelet.view import deadline_left

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
NOW = datetime(2027, 5, 1, tzinfo=UTC)
JUMPS = [
    pytest.param((datetime(1970, 1, 1, tzinfo=UTC), NOW), id="1970"),
    pytest.param((datetime(2012, 3, 4, tzinfo=UTC), NOW), id="2012"),
    pytest.param((NOW + 10 * HOUR, NOW), id="ten hours ahead"),
    pytest.param((NOW + timedelta(days=1095), NOW), id="three years ahead"),
    pytest.param((NOW, NOW + timedelta(days=1095)), id="right, then three years on"),
]


class Machine:
    """As much of one as has a clock."""

    def __init__(self, wall: datetime) -> None:
        self.wall, self.steady = wall.timestamp(), 50.0
        self._clock = WallClock(
            floor=BUILD.timestamp(), wall=lambda: self.wall, steady=lambda: self.steady
        )

    def now(self) -> Moment:
        return self._clock.now()

    def passes(self, span: timedelta) -> Moment:
        self.wall += span.total_seconds()
        self.steady += span.total_seconds()
        return self.now()

    def jumps(self, to: datetime) -> Moment:
        self.wall = to.timestamp()
        return self.now()


@pytest.fixture(params=JUMPS)
def machine(request: pytest.FixtureRequest) -> Any:
    """A machine, and the time that its clock is set to."""
    wrong, right = request.param
    return Machine(wrong), right


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", "namespace": "d"}, "spec": {}, "status": status}


def test_a_token_lives_for_as_long_as_it_was_made_for(machine: Any) -> None:
    clock, right = machine
    tokens = ServiceAccountTokens(
        key_pem(new_key()), issuer="https://here", audiences=("https://here",), jwks_uri=""
    )
    claims = Claims(namespace="d", service_account=Reference(name="a", uid="1"))
    issued = tokens.sign(claims, now=clock.now(), lifetime=HOUR)
    clock.passes(30 * MINUTE)
    assert tokens.read(issued, clock.jumps(right)) is not None
    assert tokens.read(issued, clock.passes(29 * MINUTE)) is not None
    with pytest.raises(TokenError, match="expired"):
        tokens.read(issued, clock.passes(3 * MINUTE))


def test_a_pod_becomes_available_when_it_has_been_ready_for_long_enough(machine: Any) -> None:
    clock, right = machine
    since = rfc3339(clock.now())
    ready = pod(conditions=[{"type": "Ready", "status": "True", "lastTransitionTime": since}])
    clock.passes(MINUTE)
    assert pods.available_in(ready, 90, clock.jumps(right)) == timedelta(seconds=30)
    assert pods.available_in(ready, 90, clock.passes(MINUTE)) == timedelta(0)


def test_a_failed_job_waits_as_long_as_it_should(machine: Any) -> None:
    clock, right = machine
    at = rfc3339(clock.now())
    failed = pod(containerStatuses=[{"state": {"terminated": {"finishedAt": at, "exitCode": 1}}}])
    clock.passes(timedelta(seconds=4))
    assert delay_left([], [failed], clock.jumps(right)) == timedelta(seconds=6)
    assert delay_left([], [failed], clock.passes(MINUTE)) == timedelta(0)


def test_a_pod_with_a_deadline_runs_for_its_time(machine: Any) -> None:
    clock, right = machine
    limited = pod(startTime=rfc3339(clock.now()))
    limited["spec"]["activeDeadlineSeconds"] = 600
    clock.passes(5 * MINUTE)
    assert deadline_left(limited, clock.jumps(right)) == 5 * MINUTE
    assert deadline_left(limited, clock.passes(6 * MINUTE)) == timedelta(0)


def test_a_back_off_is_neither_skipped_nor_lasts_for_years(machine: Any) -> None:
    clock, right = machine
    replaced = Replacements()
    place = ("uid", 1, "node")
    replaced.replaced(place, clock.now())
    first = replaced.left(place, clock.now())
    assert first > timedelta(0)
    assert replaced.left(place, clock.jumps(right)) == first
    assert replaced.left(place, clock.passes(HOUR)) == timedelta(0)
