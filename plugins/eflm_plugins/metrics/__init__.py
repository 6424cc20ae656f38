"""The six metrics of the paper and quality, computed from the record of a stage. Imports no torch."""
