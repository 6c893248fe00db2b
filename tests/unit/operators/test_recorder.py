"""Events of the operators: in order, counted up, never an error."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from operators.client import ApiError
from operators.recorder import Recorder

START = datetime(2026, 1, 1, tzinfo=UTC)
CHART = {
    "apiVersion": "helm.cattle.io/v1",
    "kind": "HelmChart",
    "metadata": {"name": "web", "namespace": "shop", "uid": "u1"},
}
EVENTS = "/api/v1/namespaces/shop/events"


class Api:
    """Keeps Events by path; ``fault`` is raised by the next request."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.fault: ApiError | None = None

    def _fail(self) -> None:
        fault, self.fault = self.fault, None
        if fault:
            raise fault

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self._fail()
        place = f"{path}/{body['metadata']['name']}"
        assert place not in self.kept
        self.kept[place] = dict(body)
        return self.kept[place]

    async def merge(self, path: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        self._fail()
        if path not in self.kept:
            raise ApiError(404, "NotFound", path)
        self.kept[path] |= patch
        return self.kept[path]

    def told(self) -> list[tuple[str, int]]:
        """Reason and count, as kubectl lists them: by name."""
        return [(self.kept[path]["reason"], self.kept[path]["count"]) for path in sorted(self.kept)]


def recorder(api: Api) -> Recorder:
    times = (START + timedelta(seconds=second // 2) for second in range(1000))
    return Recorder(api, lambda: next(times))  # type: ignore[arg-type]


async def test_a_repeat_is_counted_up_and_another_text_is_an_event_of_its_own() -> None:
    api = Api()
    events = recorder(api)
    for message in ("no host", "no host", "no chart", "no host"):
        await events.say(CHART, "JobFailed", message, warning=True)
    first, second = (api.kept[path] for path in sorted(api.kept))
    assert (first["message"], first["count"]) == ("no host", 3)
    assert (second["message"], second["count"]) == ("no chart", 1)
    assert first["firstTimestamp"] == "2026-01-01T00:00:00Z"
    assert first["lastTimestamp"] > first["firstTimestamp"]
    assert first["involvedObject"]["namespace"] == "shop"
    assert next(iter(api.kept)).startswith(f"{EVENTS}/web.")


async def test_names_are_in_the_order_in_which_events_were_told() -> None:
    api = Api()
    events = recorder(api)
    reasons = ["Zeal", "Adding", "Moving", "Bending"]
    for reason in reasons:
        await events.say(CHART, reason, "")
    assert [reason for reason, _ in api.told()] == reasons


async def test_an_event_that_is_gone_begins_anew() -> None:
    api = Api()
    events = recorder(api)
    await events.say(CHART, "Deployed", "")
    api.kept.clear()
    await events.say(CHART, "Deployed", "")
    assert api.told() == [("Deployed", 1)]


async def test_a_refusal_is_no_error_and_the_next_time_it_is_told() -> None:
    api = Api()
    events = recorder(api)
    api.fault = ApiError(403, "Forbidden", "the namespace is going away")
    await events.say(CHART, "Deployed", "")
    assert api.told() == []
    await events.say(CHART, "Deployed", "")
    assert api.told() == [("Deployed", 1)]


async def test_events_of_what_has_no_namespace_are_in_default_and_name_none() -> None:
    api = Api()
    volume = {"apiVersion": "v1", "kind": "PersistentVolume"}
    volume["metadata"] = {"name": "pv", "uid": "u2"}  # type: ignore[assignment]
    await recorder(api).say(volume, "VolumeFailedDelete", "", warning=True)
    [(path, event)] = api.kept.items()
    assert path.startswith("/api/v1/namespaces/default/events/pv.")
    assert event["metadata"]["namespace"] == "default"
    assert "namespace" not in event["involvedObject"]
