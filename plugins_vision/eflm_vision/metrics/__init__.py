"""Metrics of what generates pictures, and of what answers questions about them."""
