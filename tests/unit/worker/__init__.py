from llmlaunch.worker.loading.loader import settle

settle()  # before any test imports torch
