"""What the session is, and what to do next: pure."""
