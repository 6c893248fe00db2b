"""Tests of the scheduler, and the nodes and pods they share."""
