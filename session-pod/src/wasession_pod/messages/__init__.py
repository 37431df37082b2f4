"""Send messages, each at most once."""
