"""Data sets of images, clips, and questions about them: built-in sets and files of the user."""
