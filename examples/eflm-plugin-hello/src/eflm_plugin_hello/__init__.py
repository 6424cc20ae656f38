"""An example package that adds two plugins to eflm: one attention variant and one metric."""
