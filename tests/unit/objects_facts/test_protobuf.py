import base64
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.objects import facts, protobuf, walk
from controlplane.objects.errors import StatusError

# Encoded by client-go v0.36.3, next to what its JSON encoder makes of the same object.
VECTORS: dict[str, dict[str, Any]] = orjson.loads(
    (Path(__file__).parent / "vectors.json").read_bytes()
)
UPSTREAM = Path.home() / "go/pkg/mod/k8s.io/api@v0.36.3/testdata/HEAD"


def raw_of(name: str) -> bytes:
    return base64.b64decode(VECTORS[name]["protobuf"])


def code_of(raw: bytes) -> int:
    try:
        protobuf.decode(raw)
    except StatusError as err:
        return err.code
    return 200


def stored(obj: dict[str, Any]) -> dict[str, Any]:
    schema = facts.schema_of_body(obj["apiVersion"], obj["kind"])
    assert schema is not None
    return walk.decode(obj, schema, strict=True)[0]


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_bodies_of_a_real_client_mean_the_same_as_their_json(name: str) -> None:
    assert stored(protobuf.decode(raw_of(name))) == stored(VECTORS[name]["json"])


def test_every_kind_with_every_field_means_the_same_as_its_json() -> None:
    if not UPSTREAM.is_dir():
        pytest.skip("the Go module cache has no test data of k8s.io/api v0.36.3")
    compared = 0
    for kind in facts.builtin_kinds():
        path = UPSTREAM / f"{kind.group or 'core'}.{kind.version}.{kind.kind}"
        if Path(f"{path}.pb").exists():
            decoded = protobuf.decode(Path(f"{path}.pb").read_bytes())
            assert stored(decoded) == stored(orjson.loads(Path(f"{path}.json").read_bytes()))
            compared += 1
    assert compared > 60


def test_truncated_bodies_are_refused_or_shorter() -> None:
    raw = raw_of("deployment")
    refused = 0
    for end in range(len(raw)):
        refused += code_of(raw[:end]) == 400
    assert refused > len(raw) // 2


@settings(database=None, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_refused_and_breaks_nothing(noise: bytes) -> None:
    head = raw_of("deployment")[:40]
    for raw in (noise, protobuf.MAGIC + noise, head + noise):
        assert code_of(raw) in (200, 400)


def test_json_is_refused() -> None:
    with pytest.raises(StatusError, match="does not appear to be a protobuf message"):
        protobuf.decode(b"{}")


def _envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    def field(number: int, value: bytes) -> bytes:
        return bytes([number << 3 | 2, len(value)]) + value

    meta = field(1, api_version.encode()) + field(2, kind.encode())
    return protobuf.MAGIC + field(1, meta) + field(2, raw)


def test_unknown_kinds_are_refused_by_name() -> None:
    with pytest.raises(StatusError, match='no kind "Gadget" is registered for version "v1"'):
        protobuf.decode(_envelope("v1", "Gadget", b""))


def test_unknown_fields_are_skipped() -> None:
    raw = bytes([15 << 3 | 0, 7, 1 << 3 | 2, 3, 1 << 3 | 2, 1]) + b"a"
    decoded = protobuf.decode(_envelope("v1", "ConfigMap", raw))
    assert decoded == {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}


def test_groups_are_refused() -> None:
    with pytest.raises(StatusError, match="illegal wireType 3"):
        protobuf.decode(_envelope("v1", "ConfigMap", bytes([1 << 3 | 3])))


def test_packed_numbers_are_read() -> None:
    # supplementalGroups of a pod's security context, field 4, packed.
    groups = bytes([4 << 3 | 2, 3, 1, 0xE8, 0x07])
    spec = bytes([14 << 3 | 2, len(groups)]) + groups
    raw = bytes([2 << 3 | 2, len(spec)]) + spec
    decoded = protobuf.decode(_envelope("v1", "Pod", raw))
    assert decoded["spec"]["securityContext"]["supplementalGroups"] == [1, 1000]
