"""The temperature of a contrastive loss."""
