"""Metrics for models that generate images and clips, and for models that answer questions about them."""
