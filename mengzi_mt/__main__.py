"""``python -m mengzi_mt``: the same command line as the console script ``mengzi-mt``."""

from mengzi_mt.cli.main import main

if __name__ == "__main__":
    main()
