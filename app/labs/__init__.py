"""One module a lab: its story and its pictures."""
