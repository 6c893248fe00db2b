"""Small schemas for these tests, written as what they describe looks like."""

from functools import partial
from typing import Any

from controlplane.objects.schema import Field, Schema, Type

STRING = Schema(type=Type.STRING)
INTEGER = Schema(type=Type.INTEGER)
BOOLEAN = Schema(type=Type.BOOLEAN)
ANY = Schema(type=Type.ANY)


def _itself(schema: Schema) -> Schema:
    return schema


def obj(*required: str, **fields: Any) -> Schema:
    """An object; a field is a schema, or a pair of a schema and its default."""
    made = {}
    for name, value in fields.items():
        schema, default = value if isinstance(value, tuple) else (value, None)
        made[name] = Field(
            name=name,
            ref=partial(_itself, schema),
            required=name in required,
            has_default=isinstance(value, tuple),
            default=default,
        )
    return Schema(type=Type.OBJECT, fields=made)


def atomic(**fields: Any) -> Schema:
    return Schema(type=Type.OBJECT, fields=obj(**fields).fields, atomic=True)


def listed(items: Schema, **more: Any) -> Schema:
    return Schema(type=Type.LIST, items_ref=lambda: items, **more)


def keyed(items: Schema, *keys: str) -> Schema:
    """A list that merges by its keys, for apply and (by the first) for strategic patches."""
    return listed(
        items,
        list_type="map",
        map_keys=keys,
        patch_strategy=frozenset({"merge"}),
        merge_key=keys[0],
    )


def set_of(items: Schema) -> Schema:
    return listed(items, list_type="set", patch_strategy=frozenset({"merge"}))


def mapped(items: Schema, **more: Any) -> Schema:
    return Schema(type=Type.MAP, items_ref=lambda: items, **more)


METADATA = obj(
    name=STRING,
    namespace=STRING,
    uid=STRING,
    resourceVersion=STRING,
    creationTimestamp=STRING,
    generation=INTEGER,
    labels=mapped(STRING),
    annotations=mapped(STRING),
    finalizers=set_of(STRING),
    ownerReferences=keyed(obj(uid=STRING, name=STRING), "uid"),
    managedFields=listed(ANY),
)
PORT = obj(containerPort=INTEGER, protocol=(STRING, "TCP"), name=STRING)
CONTAINER = obj(
    name=STRING,
    image=STRING,
    args=listed(STRING),
    env=keyed(obj(name=STRING, value=STRING), "name"),
    ports=keyed(PORT, "containerPort", "protocol"),
    resources=obj(limits=mapped(STRING), requests=mapped(STRING)),
)
POD_SPEC = obj(
    containers=keyed(CONTAINER, "name"),
    nodeSelector=mapped(STRING, atomic=True),
    nodeName=STRING,
    tolerations=listed(obj(key=STRING, value=STRING)),
)
TEMPLATE = obj(metadata=METADATA, spec=POD_SPEC)
DEPLOYMENT = obj(
    apiVersion=STRING,
    kind=STRING,
    metadata=METADATA,
    spec=obj(
        replicas=INTEGER,
        paused=BOOLEAN,
        selector=atomic(matchLabels=mapped(STRING)),
        strategy=obj(type=STRING, rollingUpdate=obj(maxSurge=INTEGER)),
        template=TEMPLATE,
        extra=ANY,
    ),
    status=obj(replicas=INTEGER, conditions=keyed(obj(type=STRING, status=STRING), "type")),
)
