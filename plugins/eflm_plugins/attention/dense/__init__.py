"""Dense attention: mha, gqa and mqa are the same module with different numbers of key-value heads."""
