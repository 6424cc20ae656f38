"""An example of a package that brings plugins of its own to eflm: one attention variant, one metric."""
