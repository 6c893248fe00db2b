"""
A condition over objects of the API, in the language of its policies (CEL).

``object`` is one object, as JSON has it: a timestamp is text there, so compare
``timestamp(object.metadata.creationTimestamp)``. With a selector the expression must hold for
each object that is selected, at least one; or it says ``objects`` and is asked once about all.
"""

import asyncio
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlencode

from controlplane.objects.cel.evaluate import CompileError, Program, compile_expression
from controlplane.objects.cel.syntax import CelSyntaxError
from controlplane.objects.cel.values import CelError
from operators.client import ApiError, Client
from operators.upgrade.checks.objects import Cel

STEPS = 200_000  # of one check: a fifth of a second, in a thread
MOST = 500  # objects of one check
_LONGEST = 10_000  # characters of an expression


@lru_cache(maxsize=64)
def _program(text: str, several: bool) -> Program:
    return compile_expression(text, frozenset({"object", "objects"} if several else {"object"}))


def problem(text: str, *, several: bool) -> str:
    """What is wrong with an expression before anything is looked at; "": nothing."""
    if len(text) > _LONGEST:
        return f"longer than {_LONGEST} characters"
    try:
        names = _program(text, several).names
    except (CelSyntaxError, CompileError, RecursionError) as err:
        return f"compilation failed: {err}"
    if {"object", "objects"} <= names:
        return "is about each object or about all objects, not both"
    if not names:
        return "looks at no object"
    return ""


class Kinds:
    """
    Where objects of a kind are, as the API's discovery says; each kind is asked for once.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[tuple[str, str], tuple[str, bool]] = {}

    async def find(self, api_version: str, kind: str) -> tuple[str, bool]:
        """Its plural, and whether it lives in namespaces. Raises :class:`ApiError`."""
        key = (api_version, kind)
        if key not in self._known:
            try:
                listed = await self._client.get(_root(api_version))
            except ApiError as err:
                if err.code != 404:
                    raise
                listed = {}
            for found in listed.get("resources") or ():
                if found.get("kind") == kind and "/" not in found["name"]:
                    self._known[key] = (found["name"], bool(found.get("namespaced")))
                    break
            else:
                raise ApiError(404, "NotFound", f"the API has no {kind} of {api_version}")
        return self._known[key]


def _root(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


async def look(wanted: Cel, client: Client, kinds: Kinds) -> str:
    """Why it is not so; "" if it is. Raises :class:`ApiError`."""
    plural, namespaced = await kinds.find(wanted.api_version, wanted.kind)
    if wanted.name and namespaced and not wanted.namespace:
        return f"a {wanted.kind} lives in a namespace, and none is named"
    path = _root(wanted.api_version)
    if namespaced and wanted.namespace:
        path += f"/namespaces/{wanted.namespace}"
    path += f"/{plural}"
    if wanted.name:
        objects = [await client.get(f"{path}/{quote(wanted.name)}")]
    else:
        query = {"labelSelector": wanted.selector, "limit": str(MOST)}
        listed = await client.get(f"{path}?{urlencode(query)}")
        objects = listed.get("items") or []
        if (listed.get("metadata") or {}).get("continue"):
            return f"more than {MOST} objects are selected"
    return await asyncio.to_thread(judge, wanted, objects)


def judge(wanted: Cel, objects: Sequence[Mapping[str, Any]]) -> str:
    """Why it is not so; "" if it is. All objects share one budget of steps."""
    try:
        program = _program(wanted.expression, not wanted.name)
    except (CelSyntaxError, CompileError, RecursionError) as err:
        return f"expression {_shown(wanted)}: compilation failed: {err}"
    budget = [STEPS]
    if "objects" in program.names:
        where = f"the {len(objects)} {wanted.kind} objects selected"
        return _evaluate(wanted, program, {"objects": list(objects)}, budget, where=where)
    if not objects:
        return f"no {wanted.kind} is selected"
    for found in objects:
        where = f"{wanted.kind} {_name(found)}"
        if why := _evaluate(wanted, program, {"object": found}, budget, where=where):
            return why
    return ""


def _evaluate(
    wanted: Cel, program: Program, variables: Mapping[str, Any], budget: list[int], *, where: str
) -> str:
    try:
        value = program.evaluate(variables, budget)
    except CelError as err:
        return f"expression {_shown(wanted)} over {where}: {err}"
    if value is True:
        return ""
    if value is False:
        return f"expression {_shown(wanted)} is false for {where}"
    return f"expression {_shown(wanted)} over {where} must be true or false, not {value!r:.80}"


def _shown(wanted: Cel) -> str:
    text = " ".join(wanted.expression.split())
    return f"'{text if len(text) <= 120 else text[:117] + '...'}'"


def _name(found: Mapping[str, Any]) -> str:
    metadata = found["metadata"]
    return "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))
