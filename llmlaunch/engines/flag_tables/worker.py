"""Flags of the built-in worker.

From ``llmlaunch worker``'s own options; a test compares.
tests/support/record_engine_flags.py writes this file, and says what its lines mean.
"""

from __future__ import annotations

VERSION = "llmlaunch worker"
FLAGS = """
--component =text
--controller-address =text
--cpu-offload
--cuda-graphs !--no-cuda-graphs
--device =text
--dtype =text
--host =text
--kv-cache-bytes =int
--limit-worker-concurrency =int
--load-in =text
--log-level =text
--max-gpu-memory =text
--max-model-len =int
--max-queue =int
--model-names =text
--model-path =text
--no-register
--port =int
--prefix-reuse !--no-prefix-reuse
--prepare
--reasoning =text
--request-timeout =float
--revision =text
--seed =int
--source =text
--stop-grace =float
--strict-seeds
--threads =int
--tool-parser =text
--trust-remote-code
--vram-bytes =int
--worker-address =text
"""
