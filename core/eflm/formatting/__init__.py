"""Formats numbers, metrics and headings as text. The command line and the HTML report use the same functions."""
