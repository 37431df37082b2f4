"""What is measured, and against what; run by hand, not by the tests."""
