"""The command line: `__main__` finds the command, one file holds each."""
