"""Names of images, and how containerd keeps those that CRI shows."""

NAMESPACE = "k8s.io"
PIN, PINNED = "io.cri-containerd.pinned", "pinned"  # a label of images that nobody may remove


def normalise(reference: str) -> str:
    """``nginx`` → ``docker.io/library/nginx:latest``."""
    name, at, digest = reference.partition("@")
    head, slash, rest = name.partition("/")
    if not slash or not ("." in head or ":" in head or head == "localhost"):
        name = f"docker.io/{name}" if slash else f"docker.io/library/{name}"
        head, _, rest = name.partition("/")
    if at:
        return f"{name}@{digest}"
    return name if ":" in rest.rpartition("/")[2] else f"{name}:latest"
