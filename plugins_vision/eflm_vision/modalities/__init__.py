"""Modalities: turn a model id, path or preset into a workload of images, clips or questions about them."""
