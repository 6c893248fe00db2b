"""Tell systemd how we are (sd_notify). Without systemd every call does nothing."""

import socket


def notify(address: str, text: str) -> None:
    """``address``: $NOTIFY_SOCKET; ``text``: READY=1, STOPPING=1, STATUS=…"""
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        try:
            sender.connect(address)
            sender.send(text.encode())
        except OSError:
            return  # systemd went away; there is nobody to tell
