"""Run ``kubectl-wasession`` as ``python -m wasession_cli``."""

from wasession_cli.main import main

main()
