"""Fakes that speak the true protocol; each passes the suite of the real thing."""
