from llmlaunch.worker.loading.loader import set_environment

set_environment()  # before any test imports torch
