"""A machine whose clock is wrong, without a network: it comes up, and is set right as it runs."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controlplane.objects.moment import BUILD
from tests.vm.api import Api, is_ready
from tests.vm.machine import Machine
from tests.vm.releases import Releases

UP = 900.0  # seconds, with emulated processors on a busy computer
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
SOON = timedelta(minutes=5)


def now() -> datetime:
    return datetime.now(UTC)


def base(shown: datetime) -> str:
    """As QEMU takes it."""
    return shown.strftime("%Y-%m-%dT%H:%M:%S")


def token(api: Api) -> str:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"
    return str(api.send("POST", path, body)["status"]["token"])


def is_good(api: Api, text: str) -> bool:
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": text},
    }
    answer = api.send("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body)
    return bool(answer["status"].get("authenticated"))


def renewed(lease: object) -> datetime:
    assert isinstance(lease, dict)
    return datetime.fromisoformat(lease["spec"]["renewTime"])


def restarts(machine: Machine) -> str:
    """Of the service, and who its children are."""
    shown = machine.run("systemctl show pinnace --property=NRestarts,MainPID")
    return shown + machine.run("pgrep --parent $(systemctl show pinnace -P MainPID) | sort")


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param(datetime(1970, 1, 1, tzinfo=UTC), id="1970"),
        pytest.param(datetime(2012, 3, 4, 5, 6, 7, tzinfo=UTC), id="2012"),
        pytest.param(now() + timedelta(hours=10), id="ten hours ahead"),
        pytest.param(now() + timedelta(days=3 * 365), id="three years ahead"),
    ],
)
def test_a_wrong_clock_is_lived_with_and_corrected_without_a_restart(
    releases: Releases, tmp_path: Path, shown: datetime
) -> None:
    with Machine(
        folder=tmp_path / "vm", image=releases.disk, network="restricted", clock=base(shown)
    ) as machine:
        lives_through_it(machine)


def lives_through_it(machine: Machine) -> None:
    machine.start()
    machine.wait_shell(UP)
    machine.run("until test -s /etc/pinnace/pinnace.yaml; do sleep 1; done", seconds=UP)
    api = Api(machine)
    node = api.wait("/api/v1/nodes", is_ready, UP)
    assert datetime.fromisoformat(node["metadata"]["creationTimestamp"]) >= BUILD
    api.wait("/api/v1/namespaces/default/serviceaccounts", lambda _: True, UP)
    issued, before = token(api), restarts(machine)
    assert is_good(api, issued)
    wrong_by = abs(float(machine.run("date +%s")) - now().timestamp())
    assert wrong_by > SOON.total_seconds()

    machine.run(f"date --utc --set=@{now().timestamp():.0f}")
    machine.run(
        "until journalctl --unit=pinnace --output=cat | grep 'the clock was set by'; "
        "do sleep 1; done",
        seconds=UP,
    )
    assert is_good(api, issued)
    api.wait(LEASE, lambda lease: abs(renewed(lease) - now()) < SOON, UP)
    assert is_good(api, token(api))
    api.wait("/api/v1/nodes", is_ready, UP)
    assert restarts(machine) == before
    machine.run("sync")

    # The clock is as wrong again; what was written says that it cannot be before this.
    written = now()
    machine.power_cut()
    machine.start()
    machine.wait_shell(UP)
    machine.run(
        "until test -S /run/pinnace/containerd/containerd.sock; do sleep 1; done", seconds=UP
    )
    assert float(machine.run("date +%s")) > written.timestamp() - SOON.total_seconds()
    api.wait("/api/v1/nodes", is_ready, UP)
