"""Texts, tokenizers and batches."""
