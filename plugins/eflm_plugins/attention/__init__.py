"""Attention variants, one folder each. A variant is built from a geometry and does not depend on a model.

`dense` contains mha, gqa and mqa, which apply a softmax over every visible key. `mla`, `nsa`, `mamba2` and `rwkv7`
contain one variant each. `visibility` (masks) and `sdpa` (fused kernels) are used by several variants.
"""
