"""The image, booted: QEMU with emulated processors, power cuts included."""
