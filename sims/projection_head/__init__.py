"""The projection head."""
