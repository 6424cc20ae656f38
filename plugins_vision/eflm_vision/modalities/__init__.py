"""Modalities: a model id, path or preset turned into a workload of pictures."""
