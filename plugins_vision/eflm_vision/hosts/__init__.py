"""Hosts: where in diffusion transformers the techniques go."""
