"""The recipe of the built-in bundle `bridge`: two frozen towers, joined by class names and by a small trained head."""
