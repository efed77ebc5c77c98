"""The processes that do Crosslens' work, and what keeps them alive."""
