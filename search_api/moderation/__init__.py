"""Moderation over HTTP: policies, dry runs, rescans, hash lists, reviews, and judging without storing."""
