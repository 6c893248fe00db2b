from datetime import UTC, datetime

from controlplane.objects import meta

NOW = datetime(2026, 1, 31, 12, 0, 0, 1234, tzinfo=UTC)
LATER = datetime(2026, 1, 31, 13, 0, 0, tzinfo=UTC)


def test_generated_names_fit_a_label_and_use_safe_letters() -> None:
    name = meta.generated_name("x" * 100, bytes(range(5)))
    assert len(name) == 63
    assert name.endswith("bcdfg")
    assert meta.generated_name("web-", bytes([0] * 5)) == "web-bbbbb"


def test_uids_are_version_4() -> None:
    assert meta.uid(b"\xff" * 16) == "ffffffff-ffff-4fff-bfff-ffffffffffff"


def test_a_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert meta.safe_hash({"a": 1, "b": [2]}) == meta.safe_hash({"b": [2], "a": 1})
    assert meta.safe_hash({"a": 1}) != meta.safe_hash({"a": 2})
    assert len(meta.safe_hash({})) == 10


def test_times_are_whole_seconds_or_microseconds() -> None:
    assert meta.rfc3339(NOW) == "2026-01-31T12:00:00Z"
    assert meta.micro_time(NOW) == "2026-01-31T12:00:00.001234Z"
    assert meta.parse_time(meta.micro_time(NOW)) == NOW


def test_a_controller_is_the_owner_that_says_so() -> None:
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r", "uid": "u"}}
    reference = meta.controller_reference(owner)
    obj = {"metadata": {"ownerReferences": [{"uid": "other"}, reference]}}
    assert meta.controller_of(obj) == reference
    assert meta.is_controlled_by(obj, owner)
    assert meta.is_owned_by(obj, {"metadata": {"uid": "other"}})
    assert not meta.is_controlled_by(obj, {"metadata": {"uid": "other"}})


def test_a_condition_keeps_its_transition_time_until_its_status_changes() -> None:
    first = meta.with_condition(None, {"type": "Ready", "status": "False"}, NOW)
    same = meta.with_condition(first, {"type": "Ready", "status": "False"}, LATER)
    assert same == first
    changed = meta.with_condition(first, {"type": "Ready", "status": "True"}, LATER)
    assert changed[0]["lastTransitionTime"] == "2026-01-31T13:00:00Z"
    assert meta.is_true({"status": {"conditions": changed}}, "Ready")
    assert meta.without_condition(changed, "Ready") == []


def test_a_write_that_only_the_server_would_see_is_no_change() -> None:
    old = {"metadata": {"name": "a", "resourceVersion": "1", "managedFields": []}, "spec": {}}
    new = {"metadata": {"name": "a", "resourceVersion": "2"}, "spec": {}}
    assert meta.equal_apart_from_server_fields(old, new)
    assert not meta.equal_apart_from_server_fields(old, {**new, "spec": {"a": 1}})
    assert not meta.spec_changed({"status": 1, "spec": 1}, {"status": 2, "spec": 1})
    assert meta.spec_changed({"data": 1}, {"data": 2})


def test_a_clone_shares_no_container() -> None:
    value = {"a": [{"b": 1}]}
    copy = meta.clone(value)
    copy["a"][0]["b"] = 2
    assert value == {"a": [{"b": 1}]}
