"""``python -m llmlaunch`` is the same program as the ``llmlaunch`` command."""

from llmlaunch.cli import main

if __name__ == "__main__":
    main()
