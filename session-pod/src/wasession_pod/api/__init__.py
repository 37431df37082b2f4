"""The HTTP API of the session pod."""
