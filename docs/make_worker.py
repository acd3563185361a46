"""Make docs/reference/worker.md from the code that reads requests and flags, and the words below.

Run: ``make docs``. A test asserts that the file is what this prints; a field without words here is an error.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from llmlaunch.cli.worker import worker
from llmlaunch.worker.api.chat.protocol import ChatBody
from llmlaunch.worker.api.completions.protocol import CompletionBody
from llmlaunch.worker.api.embeddings import EmbeddingBody
from llmlaunch.worker.api.protocol import GenerationBody
from llmlaunch.worker.api.rerank import RerankBody, ScoreBody
from llmlaunch.worker.api.responses.protocol import ResponsesBody

ROOT = Path(__file__).parents[1]
REFERENCE = "docs/reference/worker.md"

HEAD = """\
# The built-in engine

<!-- Made by docs/make_worker.py from the code: change that, then run `make docs`. -->

`engine: transformers`, the default, is llmlaunch's own server for any model that transformers can load, on GPUs and on CPUs.
`llmlaunch up` starts it; by hand it is an ordinary foreground process:

```console
$ llmlaunch worker --model-path Qwen/Qwen2.5-0.5B-Instruct --port 21002
$ curl localhost:21002/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{"model": "Qwen/Qwen2.5-0.5B-Instruct", "messages": [{"role": "user", "content": "Hi"}]}'
```

## Endpoints

| address | what it does |
|---|---|
| `POST /v1/chat/completions` | a conversation in, an answer out, whole or streamed; tools, structured output, reasoning |
| `POST /v1/completions` | text or token ids in, text out; several prompts in one call |
| `POST /v1/responses` | OpenAI's Responses API: whole or streamed, functions, `previous_response_id`, `item_reference` |
| `POST /v1/responses/input_tokens` | how many tokens such a request has; takes the same body |
| `GET`, `DELETE /v1/responses/{id}` | a response that is still remembered (the gateway asks the replica that gave it) |
| `GET /v1/responses/{id}/input_items` | what it was made from: `limit` (1 to 100, default 20), `order` (`desc`, `asc`), `after` |
| `POST /v1/responses/compact` | a conversation made shorter: the user's messages, and the model's summary of the rest |
| `POST /v1/responses/{id}/cancel` | refused with a 400: nothing runs in the background |
| `POST /v1/messages` | Anthropic's Messages API: whole or streamed, tools, thinking; see [Claude Code](../guides/claude-code.md) |
| `POST /v1/messages/count_tokens` | how many tokens such a request has |
| `POST /v1/embeddings`, `/v1/engines/{model}/embeddings` | vectors, with embedding models |
| `POST /v1/rerank`, `/v2/rerank`, `/rerank` | documents ranked by how well they fit a query, with cross-encoders |
| `POST /v1/score`, `/score` | scores of pairs of texts, with cross-encoders |
| `GET /v1/models`, `/v1/models/{name}` | the names that are served, with `max_model_len` |
| `POST /tokenize`, `/detokenize` | text or messages to token ids, and back |
| `POST /api/v1/token_check`, `/count_token`, `/model_details`, `/worker_get_status` | as FastChat has them |
| `GET /health` | 200 as soon as the port is open, with the progress of loading, the mode and the queue |
| `GET /ready` | 200 when requests will be answered, otherwise 503 with the reason |
| `GET /metrics` | Prometheus, under vLLM's names |
| `GET /openapi.json` | all of this for programs, with the fields of the bodies; there is no HTML page |

Unknown fields are ignored and `null` means the default, as OpenAI has it. Every refusal is OpenAI's envelope
`{"error": {"message", "type", "param", "code"}}` and names the parameter. Bodies may be packed as gzip, deflate or zstd
(`Content-Encoding`); unpacked, they may have 32 MiB, as any other.

## Fields of a request

`model` is one of the served names; another one is a 404. Fields beyond OpenAI's have vLLM's names and meanings.

Some fields of OpenAI's chat API are taken and have no effect, because clients send them to every server:

- `store` and `metadata`: no chat completion is kept. `/v1/responses` keeps its responses.
- `prompt_cache_key`, `prompt_cache_options`, `prompt_cache_retention`: what prompts share is reused without them.
- `service_tier`, `safety_identifier`, `moderation`: there is one tier, and nothing is moderated. `priority` orders requests.
- `verbosity`: say in the system message how long answers should be. `prediction`: nothing is predicted; the answer is the same.
- `modalities` and `audio`: answers are text. `web_search_options`: nothing is searched.
"""

SAMPLING = """\
### How a token is chosen

- The model's own `generation_config.json` gives the defaults of `temperature`, `top_p`, `top_k`, `min_p` and `repetition_penalty`.
- If neither it nor the request asks for sampling, the likeliest token is taken, as transformers' `generate` does. A request that gives
  `top_p`, `top_k`, `min_p`, `seed`, or `n` or `best_of` above 1 asks for sampling; its temperature is then 1, as with OpenAI.
- Order: biases and penalties, then temperature, `top_k`, `min_p`, `top_p`. `logprobs` are the model's own, before all of that.
- A model whose configuration recommends sampling can be asked greedily with `temperature: 0`.

### Seeds

A request with a `seed` gets the same answer every time: its random numbers are its own, whatever else runs.

- In float32 the answer is the same alone and beside other requests, up to rounding errors far below what decides a token.
- In bfloat16 and float16, other requests in the batch change the rounding, and now and then a near tie goes to another token.
  `--strict-seeds` computes seeded requests by themselves, in pieces that are always the same: the same bits whatever else runs. The price
  is the batch: each such request takes a pass of its own per token, and others wait for it. This holds for one model, dtype, device and
  version of PyTorch.
- `--seed N` gives requests without one the seed N. With `n`, the i-th answer uses `seed + i`.
- Seeded requests below float32, and all strict ones, do not reuse prefixes and are not replayed as CUDA graphs, which rounds differently.

### Priority, waiting and memory

Up to `--limit-worker-concurrency` requests run at once, and join and leave the batch at every step. Up to `--max-queue` wait; further
ones get 429 with `Retry-After`. A lower `priority` goes first, and equal ones go in order of arrival. A request that was passed over 64
times goes before all others, so a steady flow of urgent requests delays the rest and never stops it.

A request that can never fit is a 400 with the numbers. One with `max_tokens` reserves room for all of it from the start. One without
reserves room for its prompt and 512 tokens, and more as it grows. When memory runs out, the last in rank goes back into the queue with
what it has written, and continues from there later: nothing is lost, its stream only pauses (`vllm:num_preemptions_total`).

The beginning that a request shares with an earlier one is not computed again (`prompt_tokens_details.cached_tokens`; `--no-prefix-reuse`
turns that off).

### Fill in the middle

With a `suffix`, the answer is what goes between `prompt` and `suffix`. Models can do that if they were trained for it; their vocabulary
then has the marks. Known are those of Qwen2.5-Coder and Qwen3-Coder, StarCoder, SantaCoder, Granite, CodeGemma, DeepSeek, CodeLlama,
Codestral, Seed-Coder, GLM, CodeGeeX4 and InCoder. Other models answer 400. `prompt` may be empty, and may be token ids: those come between
the marks as they are. `echo` gives back the prompt alone, `usage` counts the marks, and `truncate_prompt_tokens` keeps the marks and what
is next to the answer. The end marks of these models end the answer, unless `ignore_eos` is set.

### Structured output

With `response_format` (`json_object`, `json_schema`), `structured_outputs` or one of the `guided_*` fields, only tokens that match the
form are possible, so the answer always parses, unless `max_tokens` cuts it. Requests without a form pay nothing for it. JSON schemas,
Python regular expressions, lists of choices and Lark grammars are read by llguidance. Such an answer has no reasoning. Between the
tokens of JSON there is at most a space, or a new line and its indentation: small models would fill their answers with blanks.

### Conversations

A conversation goes through the model's own chat template. Many templates refuse what OpenAI's API allows, or leave it out without a word.
With the first request, the worker tries out what the template takes. Where it must, it then changes conversations: several system and
developer messages become one at the beginning, or text before the first question if there is no system role; neighbours of one role are
joined; an empty turn fills a gap; several calls in a message become turns, each with its result; ids of calls become nine letters and
digits. What a template takes as it is stays as it is. A developer message is a system message for all templates but those that know the
role. Other roles are left to the template. If it still refuses, the answer is 400 with the template's own words.

### Tools

`tools` go to the model through its own chat template. A template that shows no tools gets them explained in the system message. Calls are
read in the formats of Hermes and Qwen, Qwen3-Coder, GLM, Kimi K2, DeepSeek, Llama 3 and 4, gpt-oss, Mistral, Gemma, Granite, MiniMax,
Phi-4 and OLMo; the chat template shows which, and `tool_parser` overrides that. JSON arguments are streamed as they are written. What
is not a call stays text, and so does a bare JSON object that names no declared function. A JSON answer that `response_format` asks for
is never taken for a call. `tool_choice: required` or a named function forces the form of a call; `none` hides the tools;
`parallel_tool_calls: false` allows one call at most.

### Reasoning

Models that write `<think>…</think>` before their answer (those whose template or vocabulary has these marks) get it separated:
`reasoning_content` in the message and in the stream's deltas, counted in `completion_tokens_details.reasoning_tokens`.
`include_reasoning: false` leaves it out of the answer, `chat_template_kwargs: {"enable_thinking": false}` asks models that can to do
without, and `--reasoning off` leaves everything in `content`.

### Responses

`/v1/responses` is chat in another form. `input` is a text or a list of items. Messages, calls (`function_call`, `custom_tool_call`,
`local_shell_call` and their like) and their outputs are read as text; items that say nothing to the model, such as `reasoning` and
`web_search_call`, are skipped. `instructions` and all messages of the roles `system` and `developer` become one system message.

`tools` may be of any kind. Functions are offered to the model, also those of a `namespace`. A `custom` tool is offered as a function with
one text, `input`, and a call of it comes as a `custom_tool_call`; its grammar is told to the model and not enforced. Other kinds
(`web_search`, `mcp` …) are left out, and missing from the response's `tools`. A `tool_choice` that names one of them is a 400;
`allowed_tools` is obeyed.

`previous_response_id` continues an earlier response; its `instructions` do not carry over. An `item_reference` stands for an item of an
earlier response. The worker keeps the newest 1,000 responses, 64 Mi characters at most, in memory, and their items. They are lost when it
ends, and another replica does not know them: the ids of responses and items say which replica gave them, and the gateway asks that one.
An unknown response id is a 400 `previous_response_not_found`, an unknown item a 404 `item_not_found`. `store: false` keeps nothing.

`/v1/responses/compact` has the model write a summary, of 2,048 tokens or a quarter of the context at most, unless `max_output_tokens` says
otherwise. It comes in a `compaction` item, which any replica can read; those of OpenAI's own are left out.

Refused as unsupported: `background`, `conversation`, `compaction_trigger` items, stored `prompt`s, and parts of messages that are not text.

## Metrics

"""

FALLBACK = """
## What runs slowly, and what does not run

Batching needs a plain KV cache. Models without one are recognised at the start, from the configuration and, for architectures that the
tests do not compare with `generate`, by a trial; `llmlaunch status`, `/health` and the log say why. Such a model runs **one request at a
time** through transformers' own `generate`, first come, first served, with all fields above but `echo` with `logprobs`:

- encoder-decoders (T5, BART), models with code of their own (`--trust-remote-code`),
- models with layers that have no plain cache (Mamba, linear attention, hybrids), that share keys, or with chunked attention,
- models with capped attention scores (Gemma 2) or sinks (gpt-oss), and any architecture whose trial gives other logits.

Sliding windows (Mistral, Gemma 3) and mixtures of experts are batched like everything else.

Quantised checkpoints are loaded if transformers can: GPTQ, AWQ, bitsandbytes, compressed-tensors and others need a package, which the
error names before anything is read; fp8 is unpacked on a CPU. `--load-in 8bit|4bit` quantises a plain checkpoint while loading, on GPUs
with the package bitsandbytes, on CPUs with torchao (8bit) or bitsandbytes (4bit). The plan counts weights as they are stored, so say with
`vram:` what a replica takes then. GGUF files are unpacked to bfloat16 once, into the cache.

## On CPUs

Many CPUs have no instructions for bfloat16 and emulate it, which makes batches and prompts several times as slow as in float32. So
with `--dtype auto` a worker times a layer's products in both types when it first loads a model of that shape (0.3 s at most, remembered in
`dtypes.json` in the cache), and computes 16-bit weights in float32 where that is faster. Nothing is lost but memory: weights and KV cache
take twice as much, so it is done only if the weights then take at most half of the memory that is free. The log and `llmlaunch status` say
what was chosen and why; a `dtype:` in the manifest wins.

The weights of linear layers are kept in the order in which the CPU reads them, in bfloat16 (the results are the same) and where float32
was chosen in its place; replicas of one model then hold a copy each. Layers of the Llama, Mistral, Qwen2 and Qwen3 kinds are computed
in fewer, larger operations there, so their sums may be rounded differently from transformers' own. A worker computes with as many
threads as there are cores that nobody else uses, checked twice a second; `--threads`, `OMP_NUM_THREADS` and `--strict-seeds` keep the
number as it is.

## On GPUs

The cache is allocated at the start, a whole context for each row. Where memory does not hold 32 rows (`--limit-worker-concurrency`) of
the model's whole context, rows get shorter until there are eight, but no shorter than 4,096 tokens; `--max-model-len` says how long they
must be instead. If a step runs out of memory, the requests in it get a 503 `out_of_memory`, and the worker goes on. After most other CUDA
errors a process cannot use its GPU any more: the worker then answers the requests that wait, and ends with exit code 1, so that
`llmlaunch up` starts it again.

On a model that lies on one GPU, steps that only decode are replayed as CUDA graphs where that is quicker: their tokens are rounded up to a
power of two, and so are the columns that they read (256 or more). The 16th step of such a shape is recorded, which takes as long as some
steps; its logits must be those of the step itself, and it must take less time, or the shape is computed as before. The log says both
times. A model that waits for the GPU within a pass (many mixtures of experts do) cannot be recorded, which the log says once. Graphs
take up to 128 MiB, which the plan counts; `--no-cuda-graphs` leaves them out.

**What has run on a GPU.** [tests/gpu](../../tests/gpu) ran on an H200 (driver 580, CUDA 13, PyTorch 2.11): answers in float32
equal `generate`'s, with replayed decodes and without; float16 and bfloat16 answer; strict seeds give the same bits alone and in a
crowd; long prompts in pieces take no memory beyond the claim; a lost device ends the worker; layers that do not fit stay in main
memory; two models share the GPU within their claims, one of them is killed and comes back, and all memory is free at the end.
`python -m benchmarks.gpu` compares speed and memory ([RESULTS.md](../../benchmarks/RESULTS.md)).

**Not yet run on a GPU**, though each has a test there: a device out of memory that is answered while the worker lives (on CPUs tested
with injected faults), one model over several GPUs, `--load-in 8bit|4bit` with bitsandbytes; GPTQ, AWQ, compressed-tensors and
fp8 checkpoints (their tests need the path of one).

## Flags

In a manifest these go under `engine_args` (`strict_seeds: true`), apart from those that have a key of their own there, such as `host`,
`port`, `names` and `gpus`.

"""

WORDS = {
    "model": "the served name",
    "temperature": "0: the likeliest token; see below",
    "top_p": "only the likeliest tokens that together weigh this much",
    "top_k": "only this many of the likeliest tokens; 0 or -1: all",
    "min_p": "only tokens at least this likely, relative to the likeliest",
    "repetition_penalty": "divides the scores of tokens of prompt and answer (CTRL)",
    "presence_penalty": "taken from the score of tokens that the answer has",
    "frequency_penalty": "the same for each time that the answer has them",
    "logit_bias": "token id → added to its score",
    "seed": "makes sampling repeatable; see below",
    "n": "answers to each prompt",
    "best_of": "how many are generated; the `n` likeliest by token come back; not streamed",
    "stop": "texts that end the answer, at most 16; they are not shown",
    "stop_token_ids": "tokens that end the answer, beside the model's own",
    "include_stop_str_in_output": "show the stop text",
    "ignore_eos": "the model's own end tokens do not end the answer",
    "min_tokens": "the answer does not end before",
    "max_tokens": "longest answer. Chat: what the context leaves; completions: 16",
    "n_predict": "llama.cpp's name for `max_tokens`, which goes before it; -1: as many as fit the context",
    "max_completion_tokens": "OpenAI's newer name of `max_tokens`, which it overrides",
    "skip_special_tokens": "default true: special tokens are not shown",
    "stream": "server-sent events",
    "stream_options": "`include_usage`: the counts at the end; `continuous_usage_stats`: in every chunk",
    "priority": "lower goes first; see below",
    "response_format": "`text`, `json_object` or `json_schema`",
    "guided_json": "a JSON schema",
    "guided_regex": "a regular expression",
    "guided_choice": "one of these texts",
    "guided_grammar": "a Lark grammar",
    "structured_outputs": "vLLM's newer form of `guided_*`: `{json, regex, choice, grammar, json_object}`; with "
    "`disable_any_whitespace`: JSON without whitespace",
    "user": "accepted, and not used",
    "messages": "the conversation; content as text or as text parts",
    "logprobs": "chat: true for the logprobs of the answer; completions: of this many likeliest tokens",
    "top_logprobs": "of this many likeliest tokens; in chat with `logprobs`",
    "tools": "functions that the model may call",
    "functions": "`tools` as they were before; the answer then has a `function_call`",
    "function_call": "`auto`, `none` or a function; with `functions`",
    "tool_choice": "`auto`, `none`, `required`, a function, or a list of allowed tools",
    "parallel_tool_calls": "false: one call at most",
    "add_generation_prompt": "default true: the template opens the assistant's turn",
    "continue_final_message": "go on with the last message instead of answering it",
    "include_reasoning": "false: reasoning is not sent",
    "reasoning_effort": "handed to the chat template, where it knows it",
    "chat_template_kwargs": "further arguments of the chat template",
    "prompt": "text, token ids, or a list of either",
    "echo": "the prompt comes before the answer; with `logprobs`, also those of its tokens",
    "suffix": "what comes after the answer, which is then the text between; see below",
    "add_special_tokens": "default true: tokens that the model was trained to begin with",
    "input": "what to work on: text, or a list (embeddings: also token ids; responses: items)",
    "max_tool_calls": "comes back; it limits calls of OpenAI's own tools",
    "service_tier": "accepted, and not used",
    "prompt_cache_key": "comes back; prefixes are reused without it",
    "safety_identifier": "comes back, and is not used",
    "instructions": "the system message of this response alone",
    "max_output_tokens": "longest answer, reasoning included",
    "previous_response_id": "continue that response",
    "store": "default true: remember this response",
    "text": "`format`: `text`, `json_object` or `json_schema`",
    "reasoning": "`effort`, handed to the chat template",
    "include": "`message.output_text.logprobs`; others are accepted, and not used",
    "truncation": "`auto`: leave out the oldest turns of a conversation that is too long; default: refuse it",
    "metadata": "comes back with the response",
    "background": "refused",
    "conversation": "refused",
    "encoding_format": "`float` or `base64` (little-endian float32)",
    "dimensions": "cut vectors to this many numbers, and normalise them again",
    "truncate": "cut what is too long; default: refuse it with the counts",
    "truncate_prompt_tokens": "cut to this many tokens, -1: to what fits (prompts lose their beginning, other texts their end)",
    "query": "what the documents are compared with",
    "documents": "texts, or objects with a `text`",
    "top_n": "only the best",
    "return_documents": "default true: the texts come back",
    "text_1": "one text, or as many as `text_2`",
    "text_2": "texts",
}
OWN_WORDS = {
    ("/v1/responses", "prompt"): "refused: stored prompts are not known here",
    ("/v1/responses", "input"): "text, or a list of items; may be left out with `previous_response_id`",
    (
        "/v1/responses",
        "tools",
    ): "functions and custom tools that the model may call; other kinds are left out",
    (
        "/v1/responses",
        "tool_choice",
    ): "`auto`, `none`, `required`, `allowed_tools`, or a function or custom tool",
}

METRICS = {
    "vllm:num_requests_running": "requests that are worked on now",
    "vllm:num_requests_waiting": "requests that wait to be worked on",
    "vllm:kv_cache_usage_perc": "share of the KV cache in use, 0 to 1",
    "vllm:num_preemptions_total": "requests that gave up their memory and waited again",
    "vllm:prompt_tokens_total": "tokens of prompts",
    "vllm:prompt_tokens_cached_total": "tokens of prompts that were not computed again",
    "vllm:generation_tokens_total": "tokens of answers",
    "vllm:request_success_total": "requests that are over, by `finished_reason`",
    "vllm:time_to_first_token_seconds": "histogram, from arrival",
    "vllm:inter_token_latency_seconds": "histogram, between tokens",
    "vllm:e2e_request_latency_seconds": "histogram, from arrival to the end",
    "llmlaunch:embedded_tokens_total": "tokens embedded",
}

GENERATION = set(GenerationBody.model_fields)
TABLES: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("Every endpoint that writes text", "", GenerationBody),
    ("`/v1/chat/completions`, beside these", "", ChatBody),
    ("`/v1/completions`, beside these", "", CompletionBody),
    ("`/v1/responses`, beside these", "/v1/responses", ResponsesBody),
    ("`/v1/embeddings`", "", EmbeddingBody),
    ("`/v1/rerank`", "", RerankBody),
    ("`/v1/score`", "", ScoreBody),
)


def fields() -> Iterator[str]:
    for title, place, body in TABLES:
        yield f"\n### {title}\n\n| field | values | meaning |\n|---|---|---|\n"
        shared = GENERATION if issubclass(body, GenerationBody) else {"model", "user"}
        schema = body.model_json_schema()["properties"]
        for name, field in body.model_fields.items():
            if body is not GenerationBody and name in shared:
                continue
            needed = " (required)" if field.is_required() else ""
            words = OWN_WORDS.get((place, name), WORDS[name])
            yield f"| `{name}` | {_values(schema[name])} | {words}{needed} |\n"


KINDS = {
    "string": "text",
    "number": "number",
    "integer": "whole number",
    "boolean": "true, false",
    "array": "list",
    "object": "object",
}


def _values(schema: dict[str, Any]) -> str:
    """What a field may be, from its JSON Schema: kinds with their limits."""
    options = [option for option in schema.get("anyOf", [schema]) if option.get("type") != "null"]
    return " or ".join(dict.fromkeys(map(_kind, options)))


def _kind(option: dict[str, Any]) -> str:
    if option.keys() <= {"default", "title"}:
        return "anything"
    if "enum" in option:
        return ", ".join(f"`{value}`" for value in option["enum"])
    kind = KINDS[option.get("type", "object")]
    low, high = option.get("minimum"), option.get("maximum")
    if "exclusiveMinimum" in option:
        return f"{kind} above {option['exclusiveMinimum']:g}, to {high:g}"
    if low is not None and high is not None:
        return f"{kind}, {low:g} to {high:g}"
    return kind if low is None or low < -(2**62) else f"{kind} from {low:g}"


def flags() -> Iterator[str]:
    yield "| flag | default | meaning |\n|---|---|---|\n"
    for name, parameter in inspect.signature(worker).parameters.items():
        option: Any = parameter.default
        flag = ", ".join(option.param_decls or ("--" + name.replace("_", "-"),)).replace("/", "`, `")
        default = option.default
        shown = "" if default in (None, "", False) else "required" if default is ... else f"`{default}`"
        if default is True:
            shown = "on"
        words = option.help.replace("<think>", "`<think>`")
        yield f"| `{flag}` | {shown} | {words} |\n"


def page() -> str:
    """The whole page. Raises KeyError for a field that has no words."""
    rows = "".join(f"| `{name}` | {words} |\n" for name, words in METRICS.items())
    return "".join(
        [HEAD, *fields(), "\n", SAMPLING, "| metric | meaning |\n|---|---|\n", rows, FALLBACK, *flags()]
    )


def write(root: Path) -> None:
    (root / REFERENCE).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write(ROOT)
    sys.stdout.write(f"{REFERENCE}\n")
