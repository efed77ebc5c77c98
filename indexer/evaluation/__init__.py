"""How well a collection answers: recall on the user's own pairs, and probabilities fitted on them."""
