"""mengzi-mt: prompt-based multi-task text-to-text learning in Chinese.

Importing the package loads nothing heavy; every room is imported where it is used.
"""

__version__ = "0.1.0"
