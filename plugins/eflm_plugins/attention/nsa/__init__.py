"""Native sparse attention (arXiv 2502.11089).

- `module`: the layer; `backends`: which implementation it uses
- `branches`: the gated sum of the three branches (section 3.2); `gather`: the same for a few queries, as in decoding
- `compression_branch`: attention to compressed tokens (section 3.3.1); `compression`: computes these tokens
- `selection`: the choice of blocks (section 3.3.2); `select_masked`, `select_dispatch`, `select_fla`: attention to them
- `window_branch`: attention to the nearest tokens (section 3.3.3)
- `cache`: the cache entry; `cost`: the number of operations; `naive`: the naive reference in loops
"""
