"""The command line: one file a verb. Each parses, makes one call, renders."""


def main() -> None:
    """Entry point of the ``llmlaunch`` command."""
    from llmlaunch.cli.app import run

    run()
