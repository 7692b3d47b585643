"""Runtimes: what runs a T5 that is no plain checkpoint of floating-point weights."""
