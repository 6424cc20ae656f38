"""Quantizers: they store weights in a given number of bits."""
