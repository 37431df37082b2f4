"""Decide what the session's state is and what to do next. Nothing here does I/O."""
