"""Reranking in workers: a queue of its own, so that searches never wait behind what is being indexed."""
