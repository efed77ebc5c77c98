"""The embedded index: a process that owns Qdrant Edge and speaks Qdrant's own HTTP API."""
