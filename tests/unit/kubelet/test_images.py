"""Which image, pulled when, with whose credentials."""

import base64
import json
from datetime import datetime, timedelta

import pytest

from node.cri.base import Image
from node.cri.reference import normalise
from node.kubelet.housekeeping import Disk, enough, to_remove
from node.kubelet.images import credentials, pull_policy
from tests.unit.kubelet.pods import NOW


@pytest.mark.parametrize(
    ("written", "whole"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.2", "docker.io/library/nginx:1.2"),
        ("me/app", "docker.io/me/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("reg.io:5000/app", "reg.io:5000/app:latest"),
        ("reg.io/a/b@sha256:1", "reg.io/a/b@sha256:1"),
    ],
)
def test_names_are_completed(written: str, whole: str) -> None:
    assert normalise(written) == whole


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("a", "Always"),
        ("a:latest", "Always"),
        ("a:1", "IfNotPresent"),
        ("a@sha256:1", "IfNotPresent"),
    ],
)
def test_the_tag_decides_where_no_policy_is_given(image: str, policy: str) -> None:
    assert pull_policy({"image": image}) == policy


def secret(auths: dict[str, dict[str, str]]) -> dict[str, object]:
    data = base64.b64encode(json.dumps({"auths": auths}).encode()).decode()
    return {"data": {".dockerconfigjson": data}}


def test_the_most_specific_credentials_come_first() -> None:
    token = base64.b64encode(b"u:p:w").decode()
    found = credentials(
        "reg.io/team/app:1",
        [
            secret({"reg.io": {"auth": token}, "other.io": {"username": "x"}}),
            secret({"https://reg.io/team": {"username": "t", "password": "s"}}),
            secret({"*.io": {"username": "wild"}}),
        ],
    )
    assert [a.username for a in found] == ["t", "u", "wild"]
    assert found[1].password == "p:w"


def test_the_hub_has_several_names() -> None:
    auths = {"https://index.docker.io/v1/": {"username": "me"}}
    assert credentials("nginx", [secret(auths)])[0].username == "me"


def image(name: str, size: int, *, pinned: bool = False) -> Image:
    return Image(id=name, tags=(name,), digests=(), size=size, pinned=pinned)


def test_images_go_when_the_disk_fills_the_oldest_first() -> None:
    images = [image("new", 10), image("old", 10), image("used", 10), image("pin", 10, pinned=True)]
    since = {"new": NOW - timedelta(hours=1), "old": NOW - timedelta(hours=2)}
    full, roomy = Disk(100, 12), Disk(100, 30)
    assert [i.id for i in to_remove(images, frozenset({"used"}), full, since, now=NOW)] == ["old"]
    assert to_remove(images, frozenset(), roomy, since, now=NOW) == ()
    fuller = Disk(100, 5)
    chosen = to_remove(images, frozenset({"used"}), fuller, since, now=NOW)
    assert [i.id for i in chosen] == ["old", "new"]


def test_an_image_that_was_used_a_moment_ago_stays() -> None:
    since = {"a": NOW - timedelta(seconds=30)}
    assert to_remove([image("a", 99)], frozenset(), Disk(100, 1), since, now=NOW) == []


def test_under_pressure_unused_images_go_until_enough_is_freed() -> None:
    images = [
        Image(id=name, tags=(name,), digests=(), size=size, pinned=name == "pause")
        for name, size in (("pause", 1), ("used", 500), ("new", 300), ("old", 200), ("older", 100))
    ]
    since = {"new": 3, "old": 2, "older": 1}

    def at(image: Image) -> datetime:
        return NOW + timedelta(minutes=since.get(image.id, 9))

    def chosen(wanted: int | None) -> list[str]:
        return [i.id for i in enough(images, frozenset({"used"}), wanted, key=at)]

    assert chosen(250) == ["older", "old"]
    assert chosen(0) == []
    assert chosen(None) == ["older", "old", "new"]
