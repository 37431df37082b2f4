"""Messages that the session sends, each at most once."""
