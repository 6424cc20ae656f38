"""Bit widths: how weights are stored."""
