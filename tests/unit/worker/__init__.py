from llmlaunch.worker.loader import settle

settle()  # before any test imports torch
