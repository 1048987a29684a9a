"""Every speed that the texts state, measured side by side in one run: `make bench`."""
