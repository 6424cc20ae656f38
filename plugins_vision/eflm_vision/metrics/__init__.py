"""Metrics of what generates pictures."""
