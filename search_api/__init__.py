"""Search over the index: the engine, the HTTP API, and the commands that use them."""
