"""Native sparse attention (arXiv 2502.11089).

`module` is the layer and `attention` the gated sum of the three branches (section 3.2); `compression` and `compressed`
are section 3.3.1, `selection` with `dispatch` or `gather` section 3.3.2, `window` section 3.3.3. `naive` is the paper's
equations by loops; `cache` is what decoding keeps.
"""
