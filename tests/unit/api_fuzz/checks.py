"""What holds for every answer, and for every object that was accepted."""

import random
from typing import Any

import orjson

from controlplane.objects.kinds import Kind
from tests.unit.api_fuzz.bodies import body, junk, spoil
from tests.unit.api_fuzz.server import Fuzzed, Reply

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
METADATA = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"

# Upstream says 500 where a client names a revision for a new object; so do we.
_THEIR_500 = "resourceVersion should not be set on objects to be created"
_BY_NAME = "Pinnace does not support "
# What only a part of the world that is missing here would answer.
_ABSENT = {503, 504}
# Controllers of these run here and may write at any time.
_CONTROLLED = ("CustomResourceDefinition", "ClusterRole")


def judge(reply: Reply, said: Any = "") -> Reply:
    """Every answer is one; every refusal is a Status that names its reason."""
    assert reply.code, f"no answer to {said}"
    if reply.code < 400:
        return reply
    status = reply.json
    assert (status["kind"], status["status"]) == ("Status", "Failure"), (status, said)
    assert status["code"] == reply.code, (status, said)
    if reply.code >= 500 and reply.code not in _ABSENT:
        by_name = reply.code == 501 and status["message"].startswith(_BY_NAME)
        assert by_name or status["message"] == _THEIR_500, (status, said)
    return reply


class Writer:
    """Writes objects of one kind, and looks after each write whether all is as it should be."""

    def __init__(self, fuzzed: Fuzzed, kind: Kind, rng: random.Random) -> None:
        self.fuzzed = fuzzed
        self.kind = kind
        self.rng = rng
        self.schema = fuzzed.parts.schemas.of(kind)
        self.path = kind.resource.path("default")

    async def send(self, method: str, path: str, sent: Any = None, **headers: str) -> Reply:
        """A refused write writes nothing; nothing is logged as a failure."""
        before = self.fuzzed.revision
        reply = judge(
            await self.fuzzed.wire.send(method, path, sent, **headers),
            (method, path, sent, headers),
        )
        if reply.code >= 400 and self.kind.kind not in _CONTROLLED:
            assert self.fuzzed.revision == before, (method, path, sent, reply.raw)
        assert not self.fuzzed.failures.found, (self.fuzzed.failures.found, method, path, sent)
        return reply

    async def create(self, sent: Any) -> dict[str, Any] | None:
        reply = await self.send("POST", self.path, sent)
        if reply.code != 201:
            return None
        made: dict[str, Any] = reply.json
        return made

    async def live(self, made: dict[str, Any]) -> None:
        """The life of an object that was accepted; it is gone in the end."""
        path = f"{self.path}/{made['metadata']['name']}"
        await self.read(path, made)
        await self.leave_alone(path)
        for _ in range(3):
            await self.change(path)
        await self.bury(path)

    async def read(self, path: str, made: dict[str, Any]) -> None:
        if self.kind.kind not in _CONTROLLED:
            assert (await self.send("GET", path)).json == made
        listed = (await self.send("GET", self.path)).json
        names = [item["metadata"]["name"] for item in listed["items"]]
        assert made["metadata"]["name"] in names
        for accept in (TABLE, METADATA_LIST):
            reply = await self.send("GET", self.path, Accept=accept)
            assert reply.code == 200
            assert reply.json
        for accept in (TABLE, METADATA):
            reply = await self.send("GET", path, Accept=accept)
            assert reply.code == 200
            assert reply.json
        assert (await self.send("GET", path, Accept="application/yaml")).code == 200

    async def leave_alone(self, path: str) -> None:
        """What changes nothing writes nothing."""
        before = (await self.send("GET", path)).json
        same = [
            ("PATCH", {}, MERGE),
            ("PATCH", [], JSON_PATCH),
            ("PATCH", {"metadata": {"name": before["metadata"]["name"]}}, MERGE),
            ("PUT", before, "application/json"),
        ]
        if not self.kind.custom:
            same.append(("PATCH", {}, STRATEGIC))
        for method, sent, media in same:
            reply = await self.send(method, path, sent, Content_Type=media)
            assert reply.code == 200, (method, sent, reply.raw)
            after = reply.json
            if self.kind.kind in _CONTROLLED:
                continue
            assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"], (
                method,
                media,
                before,
                after,
            )

    async def change(self, path: str) -> None:
        rng = self.rng
        current = (await self.send("GET", path)).json
        sub = rng.choice(("", "", "", *(f"/{name}" for name in sorted(self.kind.subresources))))
        if sub in ("/log", "/exec", "/attach", "/portforward", "/proxy"):
            sub = ""
        query = rng.choice(("?fieldManager=f", "?fieldManager=f&force=true", "", "?dryRun=All"))
        match rng.randrange(6):
            case 0:
                sent = spoil(rng, orjson.loads(orjson.dumps(current)), rng.choice((1, 2)))
                await self.send("PUT", path + sub + query, sent)
            case 1:
                media = rng.choice((MERGE, STRATEGIC))
                await self.send("PATCH", path + sub + query, self._part(), Content_Type=media)
            case 2:
                steps = [self._step(current) for _ in range(rng.choice((1, 2)))]
                await self.send("PATCH", path + sub + query, steps, Content_Type=JSON_PATCH)
            case 3:
                sent = body(rng, self.kind, self.schema)
                if isinstance(sent, dict) and isinstance(sent.get("metadata"), dict):
                    sent["metadata"]["name"] = current["metadata"]["name"]
                await self.send("PATCH", path + sub + query, sent, Content_Type=APPLY)
            case 4:
                sent = body(rng, self.kind, self.schema)
                if isinstance(sent, dict) and isinstance(sent.get("metadata"), dict):
                    sent["metadata"]["name"] = current["metadata"]["name"]
                    sent["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"]
                await self.send("PUT", path + sub + query, sent)
            case _:
                await self.send("POST", path + sub + query, body(rng, self.kind, self.schema))
        if (await self.send("GET", path)).code == 200:
            await self.leave_alone(path)

    def _part(self) -> Any:
        """A merge patch: a part of some object, or junk."""
        rng = self.rng
        made = body(rng, self.kind, self.schema)
        if not isinstance(made, dict) or rng.random() < 0.2:
            return junk(rng)
        made.pop("metadata", None) if rng.random() < 0.7 else None
        return {key: value for key, value in made.items() if rng.random() < 0.7}

    def _step(self, current: dict[str, Any]) -> Any:
        rng = self.rng
        if rng.random() < 0.1:
            return junk(rng)
        step: dict[str, Any] = {
            "op": rng.choice(("add", "replace", "remove", "move", "copy", "test")),
            "path": _pointer(rng, current),
            "from": _pointer(rng, current),
            "value": junk(rng),
        }
        return spoil(rng, step, 1) if rng.random() < 0.2 else step

    async def bury(self, path: str) -> None:
        rng = self.rng
        options = rng.choice(
            (
                None,
                {"propagationPolicy": rng.choice(("Foreground", "Background", "Orphan"))},
                {"gracePeriodSeconds": junk(rng)},
                {"preconditions": junk(rng), "dryRun": junk(rng)},
                junk(rng),
            )
        )
        await self.send("DELETE", path, options)
        for _ in range(3):
            if (await self.send("GET", path)).code == 404:
                return
            await self.send("DELETE", path, {"gracePeriodSeconds": 0})
            if (await self.send("GET", path)).code == 404:
                return
            clear = {"metadata": {"finalizers": None}}
            await self.send("PATCH", path, clear, Content_Type=MERGE)
            if self.kind.kind == "Namespace":
                found = await self.send("GET", path)
                if found.code == 200:
                    obj = found.json
                    obj["spec"] = {}
                    await self.send("PUT", f"{path}/finalize", obj)
        raise AssertionError((path, (await self.send("GET", path)).json))


def _pointer(rng: random.Random, value: Any) -> str:
    steps: list[str] = []
    while isinstance(value, dict | list) and value and rng.random() < 0.85:
        if isinstance(value, dict):
            key = rng.choice(sorted(value))
            value = value[key]
            steps.append(str(key).replace("~", "~0").replace("/", "~1"))
        else:
            at = rng.randrange(len(value))
            value = value[at]
            steps.append(str(at))
    if rng.random() < 0.2:
        steps.append(rng.choice(("-", "x", "0", "", "~", "~2", "-1", "01", "9" * 30)))
    return "/" + "/".join(steps) if steps else rng.choice(("", "/", "a"))
