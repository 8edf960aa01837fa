"""``python -m stpatch``: the command line."""

from stpatch.cli.app import main

main()
