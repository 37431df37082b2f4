"""Sessions most of which sleep: how soon a text wakes one, and what all of them cost."""
