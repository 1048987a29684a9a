"""One layer of linear self-attention learns one step of gradient descent in context."""
