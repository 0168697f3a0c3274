"""`python -m mm1` is the same program as `mm1`."""

from mm1.own_packages import own_packages


def main() -> None:
    """Run the command line, whatever folders of yours have the names of our packages."""
    with own_packages:
        from mm1.cli import main as run

        run()


if __name__ == "__main__":
    main()
