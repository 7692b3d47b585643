"""``python train.py RECIPE [key.path=value …]`` is ``mengzi-mt train …``."""

from mengzi_mt.cli.main import script

if __name__ == "__main__":
    script("train")
