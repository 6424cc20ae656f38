"""`eflm compare`: what the difference between results is worth, and why one is slower."""
