"""Who may ask the HTTP API for what, how often, and what is written down of it."""
