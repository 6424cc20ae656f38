"""The techniques of EfficientLLM (arXiv 2505.13840), as plugins. `hooks` is their manifest."""
