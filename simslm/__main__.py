"""``python -m simslm`` is the command ``simslm``."""

from simslm.cli import main

if __name__ == "__main__":
    main()
