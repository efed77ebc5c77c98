"""The command group `crosslens moderate`."""
