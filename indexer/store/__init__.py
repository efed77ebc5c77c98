"""The index as the rest of Crosslens sees it, through qdrant-client alone."""
