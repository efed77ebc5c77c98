"""Image classifiers: graphs that look at a picture when it is decoded, each described by a manifest."""
