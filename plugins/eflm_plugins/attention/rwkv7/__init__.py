"""RWKV-7's time mixing as an attention variant (arXiv 2503.14456)."""
