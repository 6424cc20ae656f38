"""Hosts: where in a family of models the techniques go."""
