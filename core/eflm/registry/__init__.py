"""Plugins: the hooks, the contracts that their objects fulfil, and discovery. No torch."""
