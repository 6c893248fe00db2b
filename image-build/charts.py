"""
Packs the charts, so that the same files give the same archive, and writes the example.

``examples/hello.yaml`` carries its chart within itself: it can be applied to a node
that has no network. Usage: ``charts.py``, after a change of ``charts/hello``.
"""

import base64
import gzip
import io
import sys
import tarfile
import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "hello.yaml"

_EXAMPLE = """\
# A web page on the node's own address, installed by the Helm operator:
#
#   kubectl apply -f examples/hello.yaml
#   kubectl get helmchart -n kube-system hello
#   curl http://<address of the node>/
#
# Change the message below and apply again: the page changes. Delete it: all goes.
# Written by image-build/charts.py; the chart within is charts/hello.
apiVersion: helm.cattle.io/v1
kind: HelmChart
metadata:
  name: hello
  namespace: kube-system
spec:
  targetNamespace: default
  # Over the values of the chart; all of them are explained in charts/hello/values.yaml.
  valuesContent: |
    message: "Hello from Pinnace"
    replicaCount: 1
  # The packed chart, in base64. Instead: repo, chart and version, or an oci:// address in chart.
  chartContent: |-
{content}
"""


def pack(folder: Path) -> bytes:
    """A chart's ``.tgz``: sorted, without owners and times."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
                entry = tarfile.TarInfo(name)
                data = path.read_bytes()
                entry.size, entry.mode = len(data), 0o644
                archive.addfile(entry, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), compresslevel=9, mtime=0)


def example(packed: bytes) -> str:
    lines = textwrap.wrap(base64.b64encode(packed).decode(), 96)
    return _EXAMPLE.format(content="\n".join(f"    {line}" for line in lines))


def main() -> int:
    EXAMPLE.parent.mkdir(exist_ok=True)
    EXAMPLE.write_text(example(pack(ROOT / "charts" / "hello")))
    sys.stdout.write(f"{EXAMPLE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
