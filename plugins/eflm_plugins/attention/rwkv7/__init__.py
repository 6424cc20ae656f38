"""RWKV-7's time mixing in the place of attention."""
