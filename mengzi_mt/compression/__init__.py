"""Compression: smaller and faster forms of a checkpoint, with what they cost."""
