"""The inductive bias of an encoder."""
