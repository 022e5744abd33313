"""``python -m nodule_diag_cli``."""

from nodule_diag_cli.main import main

if __name__ == "__main__":
    main()
