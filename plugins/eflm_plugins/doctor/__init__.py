"""`eflm doctor`: what this machine can measure."""
