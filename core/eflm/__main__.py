"""`python -m eflm`: the command line where the script is not on the path."""

from eflm.cli.main import main

main(prog_name="eflm")
