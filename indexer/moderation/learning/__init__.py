"""Learning from reviewers: thresholds and linear heads from what people decided, and what they would be worth.

Nothing here stores, decodes or applies anything: columns in, a proposal out. `learn` is the way in.
"""
