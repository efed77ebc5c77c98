"""Moderation: policies, the detectors they name, and the verdicts that follow; without storage and without HTTP."""
