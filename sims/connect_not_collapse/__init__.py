"""Domain adaptation without domain invariance: connected, not collapsed."""
