"""``python -m llmlaunch.llamacpp FLAGS``: what ``engine: llamacpp`` starts where there is no llama-server."""

import sys

from llmlaunch.errors import LlmlaunchError
from llmlaunch.llamacpp.server import serve

try:
    serve(sys.argv[1:])
except LlmlaunchError as error:
    sys.stderr.write(f"error: {error.message}\n" + (f"{error.hint}\n" if error.hint else ""))
    sys.exit(error.exit_code)
