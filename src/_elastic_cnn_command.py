"""Where the `elastic` command starts: outside the package, so that `elastic_cnn` can tell a command from a program.

A program's `import elastic_cnn` enters the paper's networks in timm's registry, which loads torch. While this module is
the one that started the process nothing does, and `elastic --help` and `--version` answer at once.
"""


def main() -> int:
    """Run the command of `sys.argv`; returns the exit code (`elastic_cnn.cli.main`)."""
    from elastic_cnn.cli import main

    return main()
