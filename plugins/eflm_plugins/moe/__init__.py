"""Mixture of experts: the routers, and the expert layer that dispatches tokens for all routers."""
