"""``python -m auto_merge`` is the same as ``python merge.py``."""

from auto_merge.cli import main

if __name__ == "__main__":
    main()
