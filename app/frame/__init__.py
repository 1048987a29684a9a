"""What every page shares: the form, the run control, the player, the pictures, the ledger and the links."""
