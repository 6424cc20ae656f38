"""The paper's six metrics and what belongs beside them: one collector a file, read by the watching process."""
