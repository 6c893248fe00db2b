"""
What API objects are: pure data and pure functions.

Objects are plain ``dict`` values as JSON gives them. No I/O, no clock, no
asyncio here; whatever must ask a store, a network or the time belongs above.
"""
