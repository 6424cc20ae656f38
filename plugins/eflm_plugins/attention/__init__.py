"""Attention variants, one folder each: built from a geometry, knowing no model.

`dense` holds the family that keeps softmax over every visible key (mha, gqa, mqa), `mla` and `nsa` the other two.
`visibility` and `sdpa` are what they share.
"""
