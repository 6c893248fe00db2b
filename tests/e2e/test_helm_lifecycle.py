"""Five charts as public ones are: installed, upgraded, made good after a failure, and gone."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from tests.charts.person import FINALIZER, Person
from tests.e2e.conftest import Space
from tests.e2e.node import Node


@dataclass(frozen=True)
class Life:
    """One chart: its values, those after, and those that cannot be had."""

    chart: str
    first: Mapping[str, Any]
    second: Mapping[str, Any]
    impossible: Mapping[str, Any]
    error: str
    # What shows that it is there, before and after.
    looks: Callable[[Person, str], Any]
    seen: tuple[Any, Any]
    # What Helm itself leaves where it is.
    stays: tuple[str, ...] = ()


def colours(person: Person, name: str) -> Any:
    items = person.space.get("widgets", f"-lapp.kubernetes.io/instance={name}")["items"]
    return sorted((item["spec"]["colour"], item["spec"]["size"]) for item in items)


def marks(person: Person, name: str) -> Any:
    return person.data(name)["message"], "after" in person.space.kubectl("get", "cm", "-o", "name")


def sites(person: Person, name: str) -> Any:
    services = person.space.kubectl("get", "services", "-o", "name").split()
    return person.data(f"{name}-umbrella")["site"], len(services)


def secret(person: Person, name: str) -> Any:
    kept = person.space.value("secret", f"{name}-credentials", path="{.data.password}")
    return len(kept) > 20, person.data(f"{name}-seen")["greeting"]


def parts(person: Person, name: str) -> Any:
    kinds = "deployments,statefulsets,ingresses,pdb,hpa,networkpolicies,cronjobs,configmaps"
    found = person.space.kubectl("get", kinds, "-o", "name", f"-lapp.kubernetes.io/instance={name}")
    return len(found.split())


EVERYTHING = {
    "store": {"enabled": True, "persistence": {"enabled": False}},
    "ingress": {"enabled": True},
    "pdb": {"create": True},
    "autoscaling": {"enabled": True},
    "networkPolicy": {"enabled": True},
    "cron": {"enabled": True},
    "priorityClass": {"create": True},
    "service": {"type": "NodePort"},
}
LIVES = {
    "crds": Life(
        chart="crds",
        first={"widgets": 1},
        second={"widgets": 2, "colour": "green"},
        impossible={"colour": "red"},
        error='Unsupported value: "red"',
        looks=colours,
        seen=([("blue", 3)], [("green", 3), ("green", 3)]),
    ),
    "hooks": Life(
        chart="hooks",
        first={"jobs": ["pre-install", "post-delete"]},
        second={"jobs": ["pre-upgrade", "post-delete"], "message": "second"},
        impossible={"jobs": ["pre-upgrade"], "fails": "pre-upgrade"},
        error="pre-upgrade",
        looks=marks,
        seen=(("first", False), ("second", True)),
        stays=(
            *(f"ConfigMap/hooks-p{when}-install-at-{n}" for when in ("ost", "re") for n in (10, 2)),
            *(f"ConfigMap/hooks-p{when}-install-at-m10" for when in ("ost", "re")),
            "ConfigMap/hooks-after",
            "ConfigMap/hooks-before",
            "Secret/hooks-kept",
        ),
    ),
    "umbrella": Life(
        chart="umbrella",
        first={"replica": {"enabled": False}},
        second={"global": {"site": "edge-2"}},
        impossible={"primary": {"port": 0}},
        error="spec.ports[0].port",
        looks=sites,
        seen=(("edge-1", 1), ("edge-2", 2)),
    ),
    "probing": Life(
        chart="probing",
        first={},
        second={"word": "other"},
        impossible={"replicas": 9},
        error="maximum: got 9, want 5",
        looks=secret,
        seen=((True, "probing of WORD"), (True, "probing of OTHER")),
    ),
    "big": Life(
        chart="big",
        first={"objects": 100},
        second={"objects": 3, **EVERYTHING},
        impossible={"pdb": {"create": True, "maxUnavailable": "many"}},
        error="maxUnavailable",
        looks=parts,
        seen=(102, 11),
    ),
}


@pytest.fixture(scope="module", autouse=True)
def definitions(node: Node) -> Iterator[None]:
    """Definitions of kinds outlive their charts, as with Helm: else all objects would go too."""
    yield
    kinds = [f"{kind}.shapes.pinnace.dev" for kind in ("widgets", "gadgets", "gizmos")]
    node.kubectl("delete", "crd", *kinds)


@pytest.fixture(scope="module")
def lives(node: Node) -> Iterator[Mapping[str, Future[None]]]:
    """All at once, each in a namespace of its own: much of a life is waiting."""
    with ThreadPoolExecutor(len(LIVES)) as pool:
        yield {name: pool.submit(live, node, name) for name in LIVES}


@pytest.mark.parametrize("name", LIVES)
def test_a_chart_lives_and_leaves_nothing(lives: Mapping[str, Future[None]], name: str) -> None:
    lives[name].result()


def live(node: Node, name: str) -> None:
    space = Space(node, f"life-of-{name}")
    node.kubectl("create", "namespace", space.name)
    account = ("get", "serviceaccount", "default")
    node.until(lambda: space.run(*account, check=False).returncode == 0)
    person, life = Person(space), LIVES[name]
    person.apply(name, life.chart, values=life.first, failurePolicy="abort")
    chart = person.deployed(name, 1)
    assert chart["metadata"]["finalizers"] == [FINALIZER]
    assert life.looks(person, name) == life.seen[0]

    person.apply(name, life.chart, values=life.second, failurePolicy="abort")
    person.deployed(name, 2)
    assert life.looks(person, name) == life.seen[1]

    person.apply(name, life.chart, values=life.impossible, failurePolicy="abort")
    assert life.error in seen_error(person, name)

    # Made good by what is possible again, with whatever was there before.
    last, how = person.last(name)
    person.apply(name, life.chart, values=life.second, failurePolicy="retry")
    person.deployed(name, last + (how == "failed"))
    assert life.looks(person, name) == life.seen[1]

    person.delete(name)
    assert person.left(name) == sorted(life.stays)
    assert space.kubectl("get", "jobs,pods", "-o", "name") == ""
    node.kubectl("delete", "namespace", space.name, "--wait=false")


def seen_error(person: Person, name: str) -> str:
    """Aborted or refused: the events tell why."""
    person.failed(name)
    selector = f"--field-selector=involvedObject.name={name},reason=JobFailed"
    return " ".join(item["message"] for item in person.space.get("events", selector)["items"])
