"""Dense attention: mha, gqa and mqa are one module with different numbers of key-value heads."""
