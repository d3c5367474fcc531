"""The protocol of a graceful stop, with no clock, sleep, socket, signal, logging or event loop.

Time is an argument (`now`, seconds on any monotonic scale). Every decision that two shells
share is made on this floor. Nothing here imports from the floors above.
"""
