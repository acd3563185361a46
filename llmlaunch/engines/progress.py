"""Lines that engines print while they start and that show that they go on. Pure.

Regular expressions, for the text of a line without what loggers put in front of it, in any case. Each was seen in the logs of the
versions of 2024 to 2026; the words of older ones stay, because they cost nothing. "Enforce eager set, disabling torch.compile" is no
progress, and neither is "Waiting for 1 local core engine": what comes again and again would keep a start alive that hangs.
"""

from __future__ import annotations

ANY_LINE = (r"\S",)
"""Of a server of which nothing is known."""

_BARS = (
    r"\d{1,3}%(?:\s*completed\s*)?\s*\|",  # tqdm: downloads, shards, graphs
    r"^(?:downloading|fetching|loading|capturing|compiling|warming).*?\b\d{1,3}(?:\.\d+)?\s*%",
)
VLLM = (
    *_BARS,
    r"^Resolved architecture",
    r"^Initializing a V\d LLM engine",
    r"^Starting to load model",
    r"^Initializing model took",
    r"^Time spent downloading weights",
    r"^Loading (?:model )?weights took",
    r"^Model loading took",
    r"^Dynamo bytecode transform",
    r"^Directly load the compiled graph|^Cache the graph|^Compiling a graph",
    r"^torch\.compile (?:takes|took|and)",
    r"^Memory profiling takes",
    r"^Available KV cache memory",
    r"^(?:GPU|CPU|HPU|TPU)? ?KV cache size",
    r"^Graph capturing finished",
    r"^init engine .* took",
    r"^Starting vLLM (?:API )?server",
    r"^Application startup complete",
)
SGLANG = (
    *_BARS,
    r"^Init torch distributed (?:begin|ends)",
    r"^Load weight (?:begin|end)",
    r"KV Cache is allocated",
    r"^Memory pool end",
    r"^(?:Capture|Piecewise).*\bgraph.*\b(?:begin|end)",
    r"^max_total_num_tokens=",
    r"^Entering DeepGEMM JIT|^Try DeepGEMM",
    r"^Application startup complete",
    r"fired up and ready",
)
LLAMACPP = (
    *_BARS,
    r"load_tensors:",
    r"(?:llama_)?model_loader?:",
    r"\bload_model: (?:loading model|initializing)",
    r"llama threadpool init",
    r"llama_context:",
    r"llama_kv_cache",
    r"sched_reserve:|graph_reserve:",
    r"warming up the model",
    r"\bmodel loaded$",
    r"server is listening|^listening |\binit: listening ",
)
