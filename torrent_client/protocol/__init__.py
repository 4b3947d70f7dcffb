"""Bytes to values and back, and nothing else: no socket, clock, thread, file or random number.

Everything in this package can be tested without waiting; `tests/test_architecture.py` keeps it so.

Thread: none.
Lock: none.
"""
