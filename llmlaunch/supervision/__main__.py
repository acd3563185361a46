"""``python -m llmlaunch.supervision --name NAME``: what ``llmlaunch up`` starts. People use ``llmlaunch`` itself."""

import logging
import os

from llmlaunch.supervision.daemon import main

code = main()
logging.shutdown()
# Everything is down. An ordinary exit would wait for threads, and one may hang in a driver that never answers.
os._exit(code)
