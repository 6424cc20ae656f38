"""Texts, tokenizers and batches for training and evaluating language models."""
