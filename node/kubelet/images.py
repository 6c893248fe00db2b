"""
Images for containers: pull policy, credentials, what to say when it does not work.

One pull at a time, as kubelet's default has it: two at once only thrash a flash card.
Waiting for the same image shares its pull.
"""

import asyncio
import base64
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from controlplane.client.base import Object
from node.cri.base import Auth, Image, Runtime, RuntimeFailure, SandboxConfig
from node.cri.reference import normalise
from node.kubelet.base import Recorder, uid_of
from node.kubelet.sources import Sources, Waiting

_DOCKER_HUB = "https://index.docker.io/v1/"


class ImageProblem(Exception):
    """``reason``: ErrImagePull, ErrImageNeverPull, InvalidImageName or ImageInspectError."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def registry_of(reference: str) -> str:
    return normalise(reference).partition("/")[0]


def pull_policy(container: Mapping[str, Any]) -> str:
    if policy := container.get("imagePullPolicy"):
        return str(policy)
    tagged = normalise(container["image"])
    return "Always" if tagged.endswith(":latest") else "IfNotPresent"


def credentials(reference: str, secrets: Iterable[Object]) -> list[Auth]:
    """Those of the pull secrets that are for the image's registry, the most specific first."""
    found: list[tuple[int, Auth]] = []
    target = normalise(reference)
    for secret in secrets:
        for server, entry in _entries(secret).items():
            prefix = _prefix(server)
            if _matches(target, prefix):
                found.append((len(prefix), _auth(server, entry)))
    return [auth for _, auth in sorted(found, key=lambda pair: -pair[0])]


def _entries(secret: Object) -> Mapping[str, Any]:
    data = secret.get("data") or {}
    if ".dockerconfigjson" in data:
        whole = json.loads(base64.b64decode(data[".dockerconfigjson"]))
        return whole.get("auths", {})  # type: ignore[no-any-return]
    if ".dockercfg" in data:
        return json.loads(base64.b64decode(data[".dockercfg"]))  # type: ignore[no-any-return]
    return {}


def _prefix(server: str) -> str:
    bare = server.removeprefix("https://").removeprefix("http://").rstrip("/")
    host, slash, path = bare.partition("/")
    if host in ("index.docker.io", "registry-1.docker.io"):
        host = "docker.io"
    return host if path in ("v1", "v2", "") else f"{host}{slash}{path}"


def _matches(target: str, prefix: str) -> bool:
    host, _, path = prefix.partition("/")
    found, _, rest = target.partition("/")
    wanted, given = host.split("."), found.split(".")
    if len(wanted) != len(given):
        return False
    if not all(w in ("*", g) for w, g in zip(wanted, given, strict=True)):
        return False
    return not path or rest == path or rest.startswith((path + "/", path + ":", path + "@"))


def _auth(server: str, entry: Mapping[str, Any]) -> Auth:
    user, password = entry.get("username", ""), entry.get("password", "")
    if entry.get("auth") and not user:
        user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
    return Auth(
        username=user,
        password=password,
        server_address=server,
        identity_token=entry.get("identitytoken", ""),
        registry_token=entry.get("registrytoken", ""),
    )


class Images:
    """Its mutable state is the lock that serialises pulls."""

    def __init__(self, runtime: Runtime, sources: Sources, recorder: Recorder) -> None:
        self._runtime = runtime
        self._sources = sources
        self._recorder = recorder
        self._pulling = asyncio.Lock()

    async def ensure(
        self, pod: Object, container: Mapping[str, Any], about: Object, sandbox: SandboxConfig
    ) -> Image:
        """The image, pulled if the policy says so; raise :class:`ImageProblem`."""
        name, policy = container["image"], pull_policy(container)
        image = await self._runtime.image(normalise(name))
        if policy == "Never" and image is None:
            text = f'Container image "{name}" is not present with pull policy of Never'
            self._recorder.record(about, "Warning", "ErrImageNeverPull", text)
            raise ImageProblem("ErrImageNeverPull", text)
        if image is not None and policy != "Always":
            text = f'Container image "{name}" already present on machine'
            text += " and can be accessed by the pod"
            self._recorder.record(about, "Normal", "Pulled", text)
            return image
        return await self._pull(pod, name, about, sandbox)

    async def _pull(self, pod: Object, name: str, about: Object, sandbox: SandboxConfig) -> Image:
        self._recorder.record(about, "Normal", "Pulling", f'Pulling image "{name}"')
        asked = time.monotonic()
        auths: list[Auth | None] = [*credentials(name, await self._secrets(pod)), None]
        problem = ""
        async with self._pulling:
            began = time.monotonic()
            for auth in auths:
                try:
                    await self._runtime.pull(normalise(name), auth, sandbox)
                    break
                except RuntimeFailure as err:
                    problem = problem or str(err)
            else:
                text = f'Failed to pull image "{name}": {problem}'
                self._recorder.record(about, "Warning", "Failed", text)
                self._recorder.record(about, "Warning", "Failed", "Error: ErrImagePull")
                raise ImageProblem("ErrImagePull", problem)
            took = time.monotonic() - began
        image = await self._runtime.image(normalise(name))
        if image is None:
            raise ImageProblem("ImageInspectError", f'Failed to inspect image "{name}"')
        text = (
            f'Successfully pulled image "{name}" in {took:.3f}s '
            f"({time.monotonic() - asked:.3f}s including waiting). Image size: {image.size} bytes."
        )
        self._recorder.record(about, "Normal", "Pulled", text)
        return image

    async def _secrets(self, pod: Object) -> list[Object]:
        out = []
        for item in pod["spec"].get("imagePullSecrets", ()):
            try:
                secret = await self._sources.object(
                    uid_of(pod), "secret", pod["metadata"]["namespace"], item["name"]
                )
            except Waiting:
                continue  # perhaps the image is public, or preloaded
            if secret is not None:
                out.append(secret)
        return out
