"""How many sessions a node's memory holds, with and without swap."""
