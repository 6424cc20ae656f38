"""The paper's six metrics and related metrics, one collector per file. Collectors run in the parent process."""
