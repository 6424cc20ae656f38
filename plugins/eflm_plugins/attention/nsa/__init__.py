"""Native sparse attention (arXiv 2502.11089).

- `module`: the layer; `attention`: the gated sum of the three branches (section 3.2)
- `compression`, `compressed`: the compression branch (section 3.3.1)
- `selection`: the choice of blocks (section 3.3.2); `masked`, `dispatch`, `fla`, `gather`: attention to chosen blocks
- `window`: the window branch (section 3.3.3)
- `backends`: the choice of an implementation; `cache`: the cache entry; `naive`: the naive reference in loops
"""
