"""Commands that read results and explain them: compare and report. No torch."""
