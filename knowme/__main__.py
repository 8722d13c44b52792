"""`python -m knowme` is `knowme`."""

from knowme.cli import main

if __name__ == "__main__":
    main()
