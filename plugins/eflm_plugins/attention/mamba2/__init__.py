"""Mamba-2 as an attention variant (arXiv 2405.21060)."""
