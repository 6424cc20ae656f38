"""Attention variants: one file each, built from a geometry, knowing no model."""
