"""Rerank bundles: models that look at a query and a result together, and say how well they match."""
