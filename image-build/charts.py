"""
Packs the charts, so that the same files give the same archive, and writes the example.

The charts of packaged components go where the API server serves them from, as a part of the
package: ``controlplane/deploy/static/charts``. ``examples/hello.yaml`` carries its chart within
itself: it can be applied to a node that has no network. Usage: ``charts.py``, after a change of
``charts``; ``charts.py --packaged`` leaves the example alone.
"""

import base64
import gzip
import io
import sys
import tarfile
import textwrap
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "hello.yaml"
STATIC = ROOT / "controlplane" / "deploy" / "static" / "charts"
PACKAGED = ("coredns", "traefik", "traefik-crd")

_EXAMPLE = """\
# A web page on the node's own address, installed by the Helm operator:
#
#   kubectl apply -f examples/hello.yaml
#   kubectl get helmchart -n kube-system hello
#   curl http://<address of the node>:8080/
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
    # Port 80 of the node is the ingress controller's, Traefik's.
    service:
      port: 8080
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


def file_name(folder: Path) -> str:
    """As ``helm package`` calls it: name and version."""
    about = yaml.safe_load((folder / "Chart.yaml").read_text())
    return f"{about['name']}-{about['version']}.tgz"


def write_packaged(target: Path = STATIC) -> list[Path]:
    """Pack what is new or changed, and remove what is of another version; all that is there."""
    target.mkdir(parents=True, exist_ok=True)
    wanted = {file_name(ROOT / "charts" / name): pack(ROOT / "charts" / name) for name in PACKAGED}
    for path in target.glob("*.tgz"):
        if path.name not in wanted:
            path.unlink()
    for name, data in wanted.items():
        path = target / name
        if not path.exists() or path.read_bytes() != data:
            partial = path.with_suffix(".partial")
            partial.write_bytes(data)
            partial.rename(path)
    return sorted(target / name for name in wanted)


def main(arguments: list[str]) -> int:
    for path in write_packaged():
        sys.stdout.write(f"{path}\n")
    if arguments != ["--packaged"]:
        EXAMPLE.parent.mkdir(exist_ok=True)
        EXAMPLE.write_text(example(pack(ROOT / "charts" / "hello")))
        sys.stdout.write(f"{EXAMPLE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
