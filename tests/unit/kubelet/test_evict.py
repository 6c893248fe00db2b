"""Who goes first when memory is short."""

from node.kubelet.evict import message, rank
from tests.unit.kubelet.pods import container, pod

MIB = 1 << 20


def named(name: str, request: str, **spec: object) -> dict[str, object]:
    asked = container(resources={"requests": {"memory": request}})
    return pod(asked, meta={"name": name, "uid": name}, **spec)


def test_the_greediest_of_the_least_important_goes_first() -> None:
    pods = [
        named("modest", "100Mi"),
        named("greedy", "10Mi"),
        named("greedier", "10Mi"),
        named("important", "10Mi", priority=1000),
        named("critical", "10Mi", priority=2_000_000_000),
    ]
    usage = {
        "modest": 50 * MIB,
        "greedy": 60 * MIB,
        "greedier": 90 * MIB,
        "important": 500 * MIB,
        "critical": 900 * MIB,
    }
    order = [p["metadata"]["name"] for p in rank(pods, usage, "memory")]
    assert order == ["greedier", "greedy", "important", "modest"]


def test_the_message_says_what_was_used_and_asked_for() -> None:
    text = message(named("p", "10Mi"), 20 * MIB, "memory", 50 * MIB)
    assert "available: 51200Ki" in text
    assert "Container c was using 20480Ki, request is 10240Ki" in text
