"""The HTTP API of a session pod: its models, and a client."""
