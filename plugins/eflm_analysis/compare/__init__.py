"""`eflm compare`: differences between results, their significance, and why a side is slower."""
