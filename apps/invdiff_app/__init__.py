"""The app's parts: what is on the pages, the jobs behind them, and the words. It computes through invdiff's configs alone."""
