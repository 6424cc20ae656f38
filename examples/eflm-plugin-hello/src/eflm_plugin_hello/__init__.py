"""An example package that adds plugins to eflm: an attention variant, a metric, a command and an observer."""
