"""Mixture of experts: routers, and the one expert layer that dispatches for all of them."""
