"""`make demo`: a session's life on one machine, step by step with the time of each."""
