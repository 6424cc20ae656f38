"""Measuring: windows emitted by the child, samples taken by the watching parent, and what is made of them."""
