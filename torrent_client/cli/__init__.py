"""The command line: arguments in, exit codes out.

Thread: main.
Lock: none.
"""
