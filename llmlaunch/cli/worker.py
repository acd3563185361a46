"""``llmlaunch worker``: one model behind an OpenAI-compatible server, as an ordinary foreground process."""

from __future__ import annotations

import typer


def worker(
    model_path: str = typer.Option(
        ..., "--model-path", help="Folder, GGUF file, package://MODULE, or hub id."
    ),
    model_names: str = typer.Option(
        "",
        "--model-names",
        help="Names that clients use, separated by commas. Default: as in a manifest, the last part of the model.",
    ),
    host: str = typer.Option("127.0.0.1", help="Address to listen on."),
    port: int = typer.Option(21002, min=1, max=65535, help="Port to listen on."),
    worker_address: str = typer.Option(
        "", help="Address to register, if not http://HOST:PORT (behind a proxy, in a container)."
    ),
    controller_address: str = typer.Option(
        "", help="Controller to register with, for example http://127.0.0.1:21001."
    ),
    no_register: bool = typer.Option(
        False, "--no-register", help="Do not register, whatever --controller-address says."
    ),
    component: str = typer.Option("", help="Component name in a deployment."),
    device: str = typer.Option("auto", help="auto, cpu or cuda."),
    dtype: str = typer.Option(
        "auto", help="auto (as stored, or float32 where a CPU is faster in it), float32, bfloat16 or float16."
    ),
    limit_worker_concurrency: int = typer.Option(
        32, min=1, help="Requests that run at the same time; others wait."
    ),
    max_queue: int = typer.Option(1024, min=0, help="Requests that may wait; more get 429."),
    max_model_len: int | None = typer.Option(
        None, min=1, help="Longest prompt and answer together, in tokens."
    ),
    revision: str | None = typer.Option(None, help="Branch, tag or commit on the hub."),
    source: str = typer.Option("auto", help="Where hub ids are looked up: auto, huggingface, modelscope."),
    trust_remote_code: bool = typer.Option(
        False, "--trust-remote-code", help="Run Python code that comes with the model."
    ),
    vram_bytes: int | None = typer.Option(
        None, min=1, help="GPU memory it may take, in bytes, over all its GPUs."
    ),
    max_gpu_memory: str = typer.Option(
        "", help="Most weights per GPU, for example 20GiB. Default: what the claim or the GPU leaves."
    ),
    cpu_offload: bool = typer.Option(
        False, "--cpu-offload", help="Keep layers that do not fit the GPUs in main memory: slow, but it runs."
    ),
    load_in: str = typer.Option(
        "", help="8bit or 4bit: pack the weights while loading (bitsandbytes; 8bit on a CPU: torchao)."
    ),
    kv_cache_bytes: int | None = typer.Option(
        None, min=1, help="Memory for keys and values, in bytes. Default: what is left."
    ),
    threads: int | None = typer.Option(
        None, min=1, help="CPU threads for computing. Default: the cores it may use."
    ),
    seed: int | None = typer.Option(None, help="Seed for requests without one, so that they are repeatable."),
    stop_grace: float = typer.Option(
        30.0, min=0, help="Seconds that running requests get to finish when it shuts down."
    ),
    request_timeout: float | None = typer.Option(
        None,
        help="Seconds of silence that gateways accept while it has requests. Default: they decide.",
    ),
    prefix_reuse: bool = typer.Option(
        True, "--prefix-reuse/--no-prefix-reuse", help="Compute shared prompt prefixes once."
    ),
    reasoning: str = typer.Option(
        "auto", help="auto: reasoning (<think>) is returned as reasoning_content; off: as part of the answer."
    ),
    tool_parser: str = typer.Option(
        "auto",
        help="Format of the model's tool calls (hermes, mistral, qwen3_coder, …). auto: as its chat template shows.",
    ),
    strict_seeds: bool = typer.Option(
        False,
        "--strict-seeds",
        help="Compute requests with a seed alone, so that their answers do not depend on the load.",
    ),
    cuda_graphs: bool = typer.Option(
        True, "--cuda-graphs/--no-cuda-graphs", help="Use CUDA graphs for decode steps where they are faster."
    ),
    log_level: str = typer.Option("info", help="debug, info, warning or error."),
    prepare: bool = typer.Option(
        False, "--prepare", help="Download and convert the model, then exit, so that later starts are quick."
    ),
) -> None:
    """Serve one model over HTTP. Registers with a controller if one is named; needs none.

    GET /health answers as soon as the port is open and tells the progress of loading; GET /ready answers 200 when
    requests will be served. Exit codes: 2 when no retry can help (no such model, wrong flag), 1 otherwise.
    """
    from llmlaunch import http_server
    from llmlaunch.worker.config import WorkerConfig, check, served_names

    _check_installed()
    http_server.configure_logging(log_level)
    config = WorkerConfig(
        model=model_path,
        names=served_names(model_path, model_names),
        host=host,
        port=port,
        worker_address=worker_address,
        controller_address="" if no_register else controller_address,
        component=component,
        device=device,
        dtype=dtype,
        max_concurrency=limit_worker_concurrency,
        max_queue=max_queue,
        max_model_len=max_model_len,
        revision=revision,
        source=source,
        trust_remote_code=trust_remote_code,
        vram_bytes=vram_bytes,
        max_gpu_memory=_bytes(max_gpu_memory, "--max-gpu-memory"),
        cpu_offload=cpu_offload,
        load_in=load_in,
        kv_cache_bytes=kv_cache_bytes,
        threads=threads,
        seed=seed,
        stop_grace_s=stop_grace,
        request_timeout_s=request_timeout,
        prefix_reuse=prefix_reuse,
        reasoning=reasoning,
        tool_parser=tool_parser,
        strict_seeds=strict_seeds,
        cuda_graphs=cuda_graphs,
    )
    check(config)
    if prepare:
        from llmlaunch.worker.loading.loader import prepare as prepare_model
        from llmlaunch.worker.state import WorkerState

        folder = prepare_model(config, WorkerState(needs_controller=False).progress)
        typer.echo(f"{model_path} is ready: {folder}")
        return
    sock = http_server.bind(host, port)  # before anything heavy is imported: a taken port is told at once

    from llmlaunch.worker.compute import lean_imports

    lean_imports.begin()
    from llmlaunch.worker.server import run

    raise typer.Exit(run(config, sock))


def _check_installed() -> None:
    """Raises UsageError when the packages of the built-in engine are not installed."""
    import sys

    from llmlaunch import extras
    from llmlaunch.errors import UsageError

    if absent := extras.absent(extras.WORKER.modules):
        lacking = extras.Missing(extras.WORKER, sys.executable, tuple(absent))
        command = extras.command_here(extras.WORKER)
        raise UsageError(lacking.message, hint=f"install it: {command}", code="missing_extra")


def _bytes(given: str, flag: str) -> int | None:
    """Raises UsageError if it is not a valid size."""
    from llmlaunch.errors import UsageError
    from llmlaunch.manifest.sizes import SIZE_EXPECTED, parse_size

    if not given:
        return None
    try:
        return parse_size(int(given) if given.isdigit() else given)
    except ValueError as error:
        raise UsageError(f"{flag} {given!r}: {error}", hint=f"write {SIZE_EXPECTED}") from error
