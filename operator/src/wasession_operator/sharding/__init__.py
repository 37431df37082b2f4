"""Which replica acts on which sessions: shards, their Leases, and what their holder runs."""
