"""Mamba-2's mixer in the place of attention."""
