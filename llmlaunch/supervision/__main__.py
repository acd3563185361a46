"""``python -m llmlaunch.supervision --name NAME``: what ``llmlaunch up`` starts. People use ``llmlaunch`` itself."""

import sys

from llmlaunch.supervision.daemon import main

sys.exit(main())
