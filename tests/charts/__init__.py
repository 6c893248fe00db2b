"""
Charts for tests, and what packs and renders them.

Each folder is a chart that is made as public charts are made: with definitions
of its own kinds, with hooks, with charts within, with questions to the API, with very much.
"""
