"""The command line: one file per command group; heavy modules are imported when a command runs."""
