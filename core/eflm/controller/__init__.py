"""The parent process: starts workers, samples them, and computes metrics. No torch."""
