"""Files and texts in: found, read within limits, decoded to RGB."""
