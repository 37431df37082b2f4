"""The HTTP API of a session pod: its models, and a client."""

PORT = 8080
