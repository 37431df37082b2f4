"""The session's volume: the browser profile with the login, and snapshots of it."""
