"""The tests; each folder says what it needs."""
