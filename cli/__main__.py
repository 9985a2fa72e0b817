"""The entry point: a Ctrl-C is one line from the very first import on."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit("error: interrupted")


if __name__ == "__main__":
    main()
