"""Tests of the generated facts and of everything that walks objects by them."""
