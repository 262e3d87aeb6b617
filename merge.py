"""Command line of auto_merge: ``python merge.py --config exp_config/config_lfs.yaml``."""

from auto_merge.cli import main

if __name__ == "__main__":
    main()
