"""`python -m invdiff` is `invdiff`."""

from invdiff.cli.main import main

if __name__ == "__main__":
    main()
