"""Whatever is sent, the answer is an answer: never an internal error, never half a write."""

import base64
import random
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.api_fuzz import requests
from tests.unit.api_fuzz.bodies import body
from tests.unit.api_fuzz.checks import Writer, judge
from tests.unit.api_fuzz.conftest import Run
from tests.unit.api_fuzz.server import Fuzzed

VECTORS = Path(__file__).parent.parent / "objects_facts" / "vectors.json"
MESSAGES = [
    base64.b64decode(vector["protobuf"]) for vector in orjson.loads(VECTORS.read_bytes()).values()
]
SEEDS = st.integers(0, 2**32)
FUZZ = settings(settings.get_profile("api_fuzz"), max_examples=800)
LIVES = settings(settings.get_profile("api_fuzz"), max_examples=80)


@FUZZ
@given(seed=SEEDS)
def test_any_request_has_an_answer(running: tuple[Fuzzed, Run], seed: int) -> None:
    served, run = running
    run(_any_request(served, random.Random(seed)))


async def _any_request(served: Fuzzed, rng: random.Random) -> None:
    kinds = list(served.parts.kinds)
    odd = rng.random() < 0.05
    method = rng.choice(requests.ODD_METHODS if odd else requests.METHODS)
    path, headers = requests.path(rng, kinds), requests.headers(rng)
    sent = None
    if method not in ("GET", "HEAD"):
        sent = requests.raw_body(rng, rng.choice(kinds), served.parts.schemas, MESSAGES)
    before = served.revision
    reply = await served.wire.send(method, path, sent, **headers)
    assert not served.failures.found, served.failures.found
    if method == "HEAD":
        assert reply.code
        return
    if reply.headers.get("content-type", "").startswith("text/plain") and reply.code == 400:
        served.wire.close()  # aiohttp's parser has given up on the connection
        return
    judge(reply, (method, path[:200], headers, (sent or b"")[:200]))
    if reply.code >= 400 and method != "DELETE":
        assert served.revision == before


@LIVES
@given(seed=SEEDS)
def test_what_is_accepted_lives_and_what_is_refused_leaves_no_trace(
    running: tuple[Fuzzed, Run], seed: int
) -> None:
    served, run = running
    rng = random.Random(seed)
    kinds = [kind for kind in served.parts.kinds if "create" in kind.verbs]
    run(_life(Writer(served, rng.choice(kinds), rng)))


async def _life(writer: Writer) -> None:
    rng = writer.rng
    sent = body(rng, writer.kind, writer.schema)
    made = await writer.create(sent)
    if made is not None and "get" in writer.kind.verbs:
        await writer.live(made)


@pytest.mark.parametrize("media", ["application/json", "application/yaml"])
@pytest.mark.parametrize("raw", requests.ODD_BODIES, ids=range(len(requests.ODD_BODIES)))
def test_odd_bodies_are_refused_or_read(
    running: tuple[Fuzzed, Run], raw: bytes, media: str
) -> None:
    served, run = running
    path = "/api/v1/namespaces/default/configmaps?dryRun=All"
    for method, name in (("POST", path), ("PATCH", path.replace("?", "/a?fieldManager=x&"))):
        media_type = "application/apply-patch+yaml" if method == "PATCH" else media
        reply = judge(run(served.wire.send(method, name, raw, Content_Type=media_type)), raw[:80])
        assert reply.code < 500
    assert not served.failures.found


def test_yaml_that_would_fill_the_memory_is_refused(running: tuple[Fuzzed, Run]) -> None:
    served, run = running
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    path = "/api/v1/namespaces/default/configmaps"
    reply = run(
        served.wire.send("POST", path, "\n".join(lines).encode(), Content_Type="application/yaml")
    )
    assert reply.code == 400
    assert "excessive aliasing" in reply.json["message"]


def test_a_body_of_more_than_three_mebibytes_is_too_large(running: tuple[Fuzzed, Run]) -> None:
    served, run = running
    path = "/api/v1/namespaces/default/configmaps"
    body = {"metadata": {"name": "large"}, "data": {"a": "x" * (3 << 20)}}
    assert judge(run(served.wire.send("POST", path, body))).code == 413
    served.wire.close()
