"""Reranking: what is kept of pictures for it, and the walk down a list until time is up."""
