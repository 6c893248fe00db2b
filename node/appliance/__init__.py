"""What only a machine booted from our image has: its partitions, its slots, its release."""
