"""Texts, tokenizers and batches: what the language modality trains on and is judged by."""
