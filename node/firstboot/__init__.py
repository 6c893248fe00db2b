"""The one file on the boot partition that makes a flashed card into this node."""
