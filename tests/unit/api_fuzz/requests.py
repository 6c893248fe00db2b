"""Random requests: paths, queries, headers and bodies that are nearly right, or not at all."""

import random
from urllib.parse import quote

import orjson

from controlplane.objects.kinds import Kind
from controlplane.objects.schema import Schemas
from tests.unit.api_fuzz.bodies import body

METHODS = ("GET", "GET", "GET", "POST", "POST", "PUT", "PATCH", "PATCH", "DELETE", "HEAD")
ODD_METHODS = ("OPTIONS", "TRACE", "X")
SUBRESOURCES = (
    "status", "scale", "log", "exec", "binding", "eviction", "token", "finalize", "approval",
    "ephemeralcontainers", "resize", "x", "proxy", "proxy/a", "portforward", "attach",
)  # fmt: skip
NAMES = ("a", "b", "web", "kubernetes", "%2F", "..", "a%00b", "a%2Fb", "A", "%ff", "%C3%BC")
SEGMENTS = (
    "", "..", ".", "%2e%2e", "%2F", "watch", "namespaces", "apis", "v1", "*", "%00", "%", "%zz",
    "openapi", "v3", "API", "a" * 5000,
)  # fmt: skip
PATHS = (
    "/", "/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1", "/version", "/metrics",
    "/openapi/v3", "/openapi/v3/apis/batch/v1", "/openid/v1/jwks", "/readyz?verbose", "/livez/ping",
    "/.well-known/openid-configuration", "//api//v1", "/api/v1/watch", "/logs", "/debug/pprof", "*",
    "/apis/a/b/c/d/e/f/g/h",
)  # fmt: skip
KEYS = (
    "limit", "continue", "resourceVersion", "resourceVersionMatch", "labelSelector",
    "fieldSelector", "fieldValidation", "fieldManager", "dryRun", "force", "pretty",
    "includeObject", "sendInitialEvents", "allowWatchBookmarks", "propagationPolicy",
    "gracePeriodSeconds", "orphanDependents", "exclude", "verbose", "container", "follow",
    "tailLines", "sinceTime", "command", "stdin", "ports", "timeout", "timeoutSeconds",
)  # fmt: skip
VALUES = (
    "", "a", "0", "1", "-1", "true", "false", "All", "x=y", "metadata.name=a", "spec.nodeName=n",
    "a in (b)", "!a", "a notin (b,c)", "a>1", "metadata.name!=", "status.phase=Running", "9" * 21,
    "9" * 5000, "1e3", "ü", "%", "\x00", "*", "Strict", "Warn", "Ignore", "Exact", "NotOlderThan",
    "Metadata", "Foreground", "10", "a,b", "a=,", "=", "==", "a==b,c!=d", "(" * 50, "a in (",
    "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhIn0", "\n", "'", "\\", "٣", "²", "NaN",
    "a" * 3000, "0x10", "1_000", " 1 ",
)  # fmt: skip
ACCEPTED = (
    "*/*", "application/json", "application/yaml", "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", ";;;", ",", ";=;",
    "application/json;as=PartialObjectMetadata;v=v1beta1;g=meta.k8s.io", "text/html",
    "application/vnd.kubernetes.protobuf", "application/json;q=x",
    "application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io",
)  # fmt: skip
SENT = (
    "application/json", "application/yaml", "application/vnd.kubernetes.protobuf",
    "application/merge-patch+json", "application/strategic-merge-patch+json",
    "application/json-patch+json", "application/apply-patch+yaml", "text/plain", "", ";",
    "application/json; charset=x",
)  # fmt: skip
HEADERS = (
    ("Impersonate_User", "ann"),
    ("Impersonate_User", "system:serviceaccount:::"),
    ("Impersonate_Extra_%zz", "x"),
    ("If_None_Match", "*"),
    ("Expect", "100-continue"),
    ("Expect", "x"),
    ("Content_Encoding", "gzip"),
    ("Content_Encoding", "br"),
    ("User_Agent", "ü" * 200),
    ("Audit_Id", "\t"),
)
ODD_BODIES = (
    b"null", b"1", b'"a"', b"[]", b"NaN", b"Infinity", b'{"a":NaN}', b'{"a":1,"a":2}', b"\xff\xfe",
    b"\xef\xbb\xbf{}", b"{}{}", b"---\n{}\n---\n{}", b"!!python/object:os.system {}", b"a: &a [*a]",
    b"&a {a: *a}", b"{a: b", b"? {a: b}\n: c", b"1: 2\nnull: 3\ntrue: 4", b"a: .nan\nb: .inf",
    b"a: 2020-01-01\nb: !!binary aGk=\nc: !!set {x}", b'{"metadata":{"name":"\\ud800"}}',
    b'a: "\\ud800"', b"<<: 1", b"<<: {a: b}\nc: d", b"\t", b"%YAML 9.9\n---\na: b",
    b'{"a":' * 5000, b"[" * 100_000, b"{a: " * 100_000, b"- " * 100_000 + b"x",
    b'{"metadata":{"name":"a"},"spec":' + b'{"a":' * 252 + b"1" + b"}" * 253,
    b'{"metadata":{"name":"a"},"spec":' + b'{"a":' * 900 + b"1" + b"}" * 901,
    b'{"a":' + b"9" * 400 + b"}",
)  # fmt: skip


def path(rng: random.Random, kinds: list[Kind]) -> str:
    if rng.random() < 0.05:
        return rng.choice(PATHS)
    namespace = rng.choice(("default", "default", "", "kube-system", "nope"))
    name = rng.choice(("", "", "a", "web", rng.choice(NAMES)))
    subresource = rng.choice(("", "", "", rng.choice(SUBRESOURCES)))
    found = rng.choice(kinds).resource.path(namespace, name, subresource)
    if rng.random() < 0.15:
        parts = found.split("/")
        parts[rng.randrange(len(parts))] = rng.choice(SEGMENTS)
        found = "/" + "/".join(parts).lstrip("/")
    return found + query(rng)


def query(rng: random.Random) -> str:
    many = rng.choice((0, 0, 1, 2, 3))
    terms = [f"{rng.choice(KEYS)}={quote(rng.choice(VALUES), safe='')}" for _ in range(many)]
    if rng.random() < 0.1:
        # A watch that would stay open is not what these requests are about.
        terms += ["watch=1", "resourceVersion=x"]
    return "?" + "&".join(terms) if terms else ""


def headers(rng: random.Random) -> dict[str, str]:
    found = {"Content_Type": rng.choice(SENT), "Accept": rng.choice(ACCEPTED)}
    if rng.random() < 0.2:
        name, value = rng.choice(HEADERS)
        found[name] = value
    return found


def raw_body(rng: random.Random, kind: Kind, schemas: Schemas, messages: list[bytes]) -> bytes:
    """``messages``: protobuf bodies that are right."""
    match rng.randrange(6):
        case 0:
            return b""
        case 1:
            return flipped(rng, rng.choice(messages), bytes(range(256)))
        case 2:
            return b"k8s\x00" + rng.randbytes(rng.randrange(60))
        case 3:
            return rng.choice(ODD_BODIES)
        case 4:
            right = orjson.dumps(body(rng, kind, schemas.of(kind)))
            return flipped(rng, right, b'{}[]",:\\0-eE\xff\x00 nutf')
        case _:
            return orjson.dumps(body(rng, kind, schemas.of(kind)))


def flipped(rng: random.Random, right: bytes, by: bytes) -> bytes:
    """A few bytes are others, and perhaps the end is missing."""
    wrong = bytearray(right)
    for _ in range(rng.choice((0, 1, 1, 3, 10))):
        if wrong:
            wrong[rng.randrange(len(wrong))] = rng.choice(by)
    return bytes(wrong[: rng.randrange(len(wrong) + 1)] if rng.random() < 0.3 else wrong)
