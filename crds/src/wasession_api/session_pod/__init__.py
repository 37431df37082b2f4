"""The HTTP API of a session pod: what it reports, takes and sends, and how to call it."""
