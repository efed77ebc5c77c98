"""Media in, vectors out, and the index that holds them.

A library: it knows nothing of the queue, the HTTP API or torch (tests/test_architecture.py holds it to that).
"""
