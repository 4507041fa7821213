"""The command line, a module for each command: they read options, call the library, and show progress and results."""
