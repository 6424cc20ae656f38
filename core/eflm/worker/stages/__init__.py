"""The measured work of each stage."""
