"""Quantizers, which store the weights of a model with fewer bits."""
