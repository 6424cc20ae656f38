"""Hosts: insert techniques into diffusion transformers and vision-language models."""
