from datetime import UTC, datetime, timedelta
from typing import Any

from controlplane.objects import fieldsets, managed
from controlplane.objects.meta import clone
from tests.unit.objects_rules.schemas import DEPLOYMENT

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


def deployment(**more: Any) -> dict[str, Any]:
    metadata = {"name": "d", "namespace": "n", "uid": "u", "resourceVersion": "1", "generation": 1}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, **more}


def tracked(live: Any, new: Any, manager: str, now: datetime = NOW, **more: Any) -> dict[str, Any]:
    result: dict[str, Any] = clone(new)
    managed.track(
        live, result, schema=DEPLOYMENT, manager=manager, api_version="apps/v1", now=now, **more
    )
    return result


def entries(obj: Any) -> dict[str, Any]:
    return {e["manager"]: e["fieldsV1"] for e in obj["metadata"].get("managedFields", ())}


def test_a_creator_owns_everything_but_what_the_server_sets() -> None:
    after = tracked(None, deployment(spec={"replicas": 1}), "me")
    assert after["metadata"]["managedFields"] == [
        {
            "manager": "me",
            "operation": "Update",
            "apiVersion": "apps/v1",
            "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {".": {}, "f:replicas": {}}},
        }
    ]


def test_the_fields_come_in_the_order_in_which_clients_compare_them() -> None:
    after = tracked(None, deployment(spec={"replicas": 1, "paused": True}), "me")
    (entry,) = after["metadata"]["managedFields"]
    assert list(entry["fieldsV1"]["f:spec"]) == [".", "f:paused", "f:replicas"]


def test_an_update_takes_what_it_changes() -> None:
    live = tracked(None, deployment(spec={"replicas": 1, "paused": True}), "one")
    new = clone(live)
    new["spec"]["replicas"] = 2
    after = tracked(live, new, "two", LATER)
    assert entries(after) == {
        "one": {"f:spec": {".": {}, "f:paused": {}}},
        "two": {"f:spec": {"f:replicas": {}}},
    }


def test_what_is_removed_is_owned_by_nobody() -> None:
    live = tracked(None, deployment(spec={"replicas": 1, "paused": True}), "one")
    new = clone(live)
    del new["spec"]["paused"]
    assert entries(tracked(live, new, "two")) == {"one": {"f:spec": {".": {}, "f:replicas": {}}}}


def test_a_write_that_changes_nothing_keeps_the_entries_and_their_time() -> None:
    live = tracked(None, deployment(spec={"replicas": 1}), "one")
    new = clone(live)
    new["metadata"]["resourceVersion"] = "2"
    assert tracked(live, new, "two", LATER)["metadata"] == new["metadata"]


def test_a_client_that_does_not_send_the_entries_does_not_lose_them() -> None:
    live = tracked(None, deployment(spec={"replicas": 1}), "one")
    new = deployment(spec={"replicas": 1})
    after = tracked(live, new, "two")
    assert entries(after) == entries(live)


def test_an_empty_list_turns_tracking_off() -> None:
    live = tracked(None, deployment(spec={"replicas": 1}), "one")
    new = clone(live)
    new["metadata"]["managedFields"] = []
    new["spec"]["replicas"] = 2
    after = tracked(live, new, "two")
    assert "managedFields" not in after["metadata"]
    again = tracked(after, {**after, "spec": {"replicas": 3}}, "two")
    assert "managedFields" not in again["metadata"]


def test_a_subresource_has_an_entry_of_its_own_and_cannot_edit_the_list() -> None:
    live = tracked(None, deployment(spec={"replicas": 1}), "one")
    new = clone(live)
    new["status"] = {"replicas": 1}
    new["metadata"]["managedFields"] = []
    after = tracked(live, new, "one", LATER, subresource="status")
    assert [e.get("subresource") for e in after["metadata"]["managedFields"]] == [None, "status"]


def test_a_condition_is_owned_by_its_type() -> None:
    live = tracked(None, deployment(), "one")
    new = deployment(status={"conditions": [{"type": "Ready", "status": "True"}]})
    after = (
        tracked(live, new, "two")
        if live["metadata"].get("managedFields")
        else tracked(None, new, "two")
    )
    assert entries(after)["two"]["f:status"]["f:conditions"] == {
        ".": {},
        'k:{"type":"Ready"}': {".": {}, "f:type": {}, "f:status": {}},
    }


def test_what_the_endpoint_resets_is_not_tracked() -> None:
    new = deployment(spec={"replicas": 1}, status={"replicas": 1})
    after = tracked(None, new, "one", reset=frozenset({("status",)}))
    assert entries(after) == {"one": {"f:spec": {".": {}, "f:replicas": {}}}}


def test_the_oldest_updaters_are_merged_beyond_ten() -> None:
    live = tracked(None, deployment(spec={"extra": {"a": 0}}), "m0")
    for index in range(1, 13):
        new = clone(live)
        new["metadata"].setdefault("labels", {})[f"l{index}"] = "x"
        live = tracked(live, new, f"m{index}", NOW + timedelta(minutes=index))
    names = [entry["manager"] for entry in live["metadata"]["managedFields"]]
    assert len(names) == 10
    assert "ancient-changes" in names
    assert "m12" in names
    owned: fieldsets.Set = {}
    for fields in entries(live).values():
        owned = fieldsets.union(owned, fields)
    assert len(owned["f:metadata"]["f:labels"]) == 13


def test_entries_that_cannot_be_read_count_as_none() -> None:
    assert managed.decode([{"operation": "Apply"}]) == []


def test_sets_are_combined_path_by_path() -> None:
    a = fieldsets.of_paths(frozenset({("a",), ("a", "b"), ("c", "d")}))
    b = fieldsets.of_paths(frozenset({("a",), ("c", "e")}))
    assert fieldsets.difference(a, b) == {"f:a": {"f:b": {}}, "f:c": {"f:d": {}}}
    assert fieldsets.without(a, b) == {"f:c": {"f:d": {}}}
    assert fieldsets.intersection(a, b) == {"f:a": {}}
    assert set(fieldsets.paths(fieldsets.union(a, b))) == {
        ("f:a",),
        ("f:a", "f:b"),
        ("f:c", "f:d"),
        ("f:c", "f:e"),
    }
