"""The command line. `bench`, `rerun`, `list-plugins` and `show` are here; plugins add all other commands."""
