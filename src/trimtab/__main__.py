"""`python -m trimtab`: the command line, where the command ``trimtab`` is not on the path."""

from __future__ import annotations

from trimtab.cli.app import main

if __name__ == "__main__":
    main()
