"""Zero-shot classification: labels in words, probabilities out, for new media and for vectors that are stored."""
