"""Hosts: they know where techniques are inserted in a family of models."""
