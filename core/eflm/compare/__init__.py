"""Comparing: what a side is, what the difference of two is worth, and why one loses."""
