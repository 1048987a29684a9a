"""The room: a class at work on one server, at one question."""
