"""Native sparse attention (arXiv 2502.11089): compression, selection, window, and the module that gates them.

`module` is the layer, `compression` and `selection` are the paper's sections 3.3.1 and 3.3.2, `cache` is what
decoding keeps.
"""
