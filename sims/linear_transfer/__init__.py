"""A head trained on one domain works on another: when, and why."""
