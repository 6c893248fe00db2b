"""An address has one owner, whatever order the news comes in."""

from typing import Any

from operators.netpol.objects import Pod, pod_of
from operators.netpol.pods import Change, Pods
from tests.fakes import netpol


def pod(name: str, ip: str, *, created: str = "1", **more: Any) -> Pod:
    body = netpol.pod(name, ip, **more)
    body["metadata"]["creationTimestamp"] = created
    made = pod_of(body)
    assert made is not None
    return made


def owner(pods: Pods, address: str) -> str:
    found = pods.at(address)
    return found.name if found else ""


def test_the_younger_of_two_pods_has_the_address() -> None:
    pods = Pods()
    pods.told(pod("new", "10.0.0.1", created="2"))
    changes = pods.told(pod("old", "10.0.0.1", created="1"))
    assert owner(pods, "10.0.0.1") == "new"
    assert [change.new and change.new.ips for change in changes] == [()]


def test_news_of_the_old_pod_do_not_take_the_address_back() -> None:
    pods = Pods()
    pods.told(pod("old", "10.0.0.1", created="1"))
    pods.told(pod("new", "10.0.0.1", created="2"))
    pods.told(pod("old", "10.0.0.1", created="1", labels={"x": "y"}))
    assert owner(pods, "10.0.0.1") == "new"


def test_an_address_falls_to_whoever_claims_it_still() -> None:
    pods = Pods()
    pods.told(pod("a", "10.0.0.1", created="1"))
    pods.told(pod("b", "10.0.0.1", created="2"))
    changes = pods.gone("default/b", "default-b", 9)
    assert owner(pods, "10.0.0.1") == "a"
    assert {change.new.name if change.new else "" for change in changes} == {"a", ""}


def test_what_the_agent_hands_over_is_sure_even_against_a_younger_pod() -> None:
    pods = Pods()
    pods.told(pod("young", "10.0.0.1", created="9"))
    pods.hand(pod("handed", "10.0.0.1", created="1"))
    assert owner(pods, "10.0.0.1") == "handed"
    pods.told(pod("young", "10.0.0.1", created="9", labels={"x": "y"}))
    assert owner(pods, "10.0.0.1") == "handed"


def test_a_watch_that_is_behind_takes_no_address_away() -> None:
    pods = Pods()
    pods.told(pod("a", "", version=1))
    pods.hand(pod("a", "10.0.0.1", version=2, labels={"n": "2"}))
    pods.told(pod("a", "", version=1))
    found = pods.at("10.0.0.1")
    assert found is not None
    assert found.labels == {"n": "2"}


def test_newer_labels_of_the_watch_beat_what_was_handed_over() -> None:
    pods = Pods()
    pods.hand(pod("a", "10.0.0.1", version=2, labels={"n": "2"}))
    pods.told(pod("a", "", version=3, labels={"n": "3"}))
    found = pods.at("10.0.0.1")
    assert found is not None
    assert found.labels == {"n": "3"}
    pods.hand(pod("a", "10.0.0.2", version=2, labels={"n": "2"}))
    found = pods.at("10.0.0.2")
    assert found is not None
    assert found.labels == {"n": "3"}


def test_the_end_of_a_namesake_does_not_end_the_pod() -> None:
    pods = Pods()
    pods.told(pod("a", "10.0.0.1", version=5))
    assert pods.gone("default/a", "another uid", 4) == []
    assert owner(pods, "10.0.0.1") == "a"


def test_late_news_of_a_namesake_are_none() -> None:
    pods = Pods()
    pods.hand(pod("a", "10.0.0.1", version=5))
    before = netpol.pod("a", "10.0.0.9", version=4)
    before["metadata"]["uid"] = "another"
    old = pod_of(before)
    assert old is not None
    assert pods.told(old) == []


def test_what_was_handed_over_is_not_missing_from_a_listing() -> None:
    pods = Pods()
    pods.hand(pod("a", "10.0.0.1"))
    assert pods.gone("default/a") == []
    pods.told(pod("a", "10.0.0.1"))
    assert pods.gone("default/a") == [Change(pod("a", "10.0.0.1"), None)]
    assert list(pods) == []


def test_a_pod_that_changes_its_address_lets_go_of_the_former() -> None:
    pods = Pods()
    pods.hand(pod("a", "10.0.0.1"))
    pods.hand(pod("a", "10.0.0.2"))
    assert owner(pods, "10.0.0.1") == ""
    pods.told(pod("b", "10.0.0.1", created="0"))
    assert owner(pods, "10.0.0.1") == "b"
