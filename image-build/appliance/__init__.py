"""
The appliance: a disk image and an update bundle, unpacked from locked packages, never run.

What belongs here: choosing and checking packages, laying files out, and the formats of disks.
What the machine does once it runs is in ``node``; files that are copied as they are lie in
``image-build/files``. Nothing here needs root, a loop device or an emulator.
"""
