"""
Which images are pinned, so that nobody removes them: a label that CRI can neither read, before
containerd 1.7, nor set.

Loaded only when somebody asks: most nodes never do.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grpclib.client import Channel
from grpclib.exceptions import GRPCError, StreamTerminatedError

from node.cri.base import RuntimeUnavailable
from node.cri.client import not_cancelled, translate
from node.cri.generated import images_pb2 as pb
from node.cri.generated.images_grpc import ImagesStub
from node.cri.reference import NAMESPACE, PIN, PINNED

_LIMIT = 60.0  # seconds


async def pinned(socket: Path) -> frozenset[str]:
    """The names of all images that are. Raises :class:`node.cri.base.RuntimeFailure`."""
    wanted = f'labels."{PIN}"=={PINNED}'
    answer = await _call(socket, "List", pb.ListImagesRequest(filters=[wanted]))
    return frozenset(image.name for image in answer.images)


async def pin(socket: Path, names: Sequence[str]) -> None:
    """Pin images that are there. Raises :class:`node.cri.base.RuntimeFailure`."""
    for name in names:
        request = pb.UpdateImageRequest(image=pb.Image(name=name, labels={PIN: PINNED}))
        request.update_mask.paths.append(f"labels.{PIN}")
        await _call(socket, "Update", request)


async def _call(socket: Path, method: str, request: Any) -> Any:
    channel = Channel(path=str(socket))
    try:
        with not_cancelled():
            call = getattr(ImagesStub(channel), method)
            metadata = {"containerd-namespace": NAMESPACE}
            return await call(request, timeout=_LIMIT, metadata=metadata)
    except GRPCError as err:
        raise translate(err) from err
    except (StreamTerminatedError, OSError) as err:
        raise RuntimeUnavailable(f"{socket}: {str(err) or 'no answer in time'}") from err
    finally:
        channel.close()
