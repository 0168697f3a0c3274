"""`python -m mm1` is the same program as `mm1`."""

from mm1.cli import main

main()
