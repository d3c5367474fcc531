"""`python -m graceful.cli`: what the console script `graceful` runs."""

from . import main

main()
