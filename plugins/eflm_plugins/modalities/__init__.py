"""Modalities: they create a workload from a model id, a path or a preset."""
