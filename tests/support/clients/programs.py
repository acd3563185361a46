"""A conversation with a tool, held by each of the client libraries that agents are made with. Run by hand and by slow tests.

This file stands alone, because it runs in an environment of the clients::

    python3 -m venv /tmp/clients
    /tmp/clients/bin/pip install langchain-openai 'pydantic-ai-slim[openai]' instructor autogen-agentchat 'autogen-ext[openai]' \\
        openai-agents litellm
    python3 -m venv /tmp/llama-index && /tmp/llama-index/bin/pip install llama-index-llms-openai-like
    /tmp/clients/bin/python tests/support/clients/programs.py http://127.0.0.1:8000/v1 MODEL [--record FOLDER] [NAME …]

A proxy between client and server lays down what the model says (``guided_choice``), so that any model will do, and keeps the
requests. Prints a line for each program; the exit code is the number of those that failed. A library that is missing is skipped.
"""
# mypy: ignore-errors

from __future__ import annotations

import asyncio
import http.client
import importlib.metadata
import json
import os
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
SAYS = "It is 18 degrees in Paris."
ASK = "What is the weather in Paris?"


class Proxy:
    """Hands requests on; the model answers ``texts``, one after the other, and then what it likes."""

    def __init__(self, base_url: str, model: str, *texts: str) -> None:
        self.model = model
        self.texts = list(texts)
        self.turns: list[dict] = []
        netloc = urlsplit(base_url).netloc
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: object) -> None: ...

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                says = outer.texts.pop(0) if outer.texts else None
                outer.turns.append({"path": self.path, "says": says, "body": body})
                steered = body | {"model": outer.model} | ({"guided_choice": [says]} if says else {})
                connection = http.client.HTTPConnection(netloc, timeout=60)
                connection.request(
                    "POST", self.path, json.dumps(steered), {"content-type": "application/json"}
                )
                answer = connection.getresponse()
                data = answer.read()
                connection.close()
                self.send_response(answer.status)
                self.send_header("content-type", answer.getheader("content-type", ""))
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def get_weather(city: str) -> str:
    """Weather of a city."""
    return "18"


def langchain(proxy: Proxy, streaming: bool = False) -> None:
    from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    llm = ChatOpenAI(base_url=proxy.url, model="tiny", streaming=streaming).bind_tools([tool(get_weather)])
    messages = [SystemMessage("Be brief."), HumanMessage(ASK)]
    proxy.texts = [CALL, SAYS]
    first = llm.invoke(messages)
    [call] = first.tool_calls
    assert call["args"] == {"city": "Paris"}
    second = llm.invoke([*messages, first, ToolMessage("18", tool_call_id=call["id"])])
    assert second.content == SAYS


def langchain_streaming(proxy: Proxy) -> None:
    langchain(proxy, streaming=True)


def llama_index(proxy: Proxy) -> None:
    from llama_index.core.llms import ChatMessage
    from llama_index.core.tools import FunctionTool
    from llama_index.llms.openai_like import OpenAILike

    llm = OpenAILike(
        api_base=proxy.url, model="tiny", api_key="none", is_chat_model=True, is_function_calling_model=True,
        context_window=2000,
    )  # fmt: skip
    proxy.texts = [CALL, SAYS]
    *_, last = llm.stream_chat_with_tools([FunctionTool.from_defaults(get_weather)], user_msg=ASK)
    [call] = llm.get_tool_calls_from_response(last)
    assert call.tool_kwargs == {"city": "Paris"}
    result = ChatMessage(role="tool", content="18", additional_kwargs={"tool_call_id": call.tool_id})
    assert SAYS in str(llm.chat([ChatMessage(role="user", content=ASK), last.message, result]))


def _pydantic_ai(proxy: Proxy, **arguments):
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=proxy.url, api_key="none")
    return Agent(OpenAIChatModel("tiny", provider=provider), system_prompt="Be brief.", **arguments)


def pydantic_ai(proxy: Proxy) -> None:
    agent = _pydantic_ai(proxy, instructions="Answer.")
    agent.tool_plain(get_weather)
    proxy.texts = [CALL, SAYS]
    assert agent.run_sync(ASK).output == SAYS


def pydantic_ai_streaming(proxy: Proxy) -> None:
    agent = _pydantic_ai(proxy, instructions="Answer.")
    agent.tool_plain(get_weather)
    proxy.texts = [CALL, SAYS]

    async def follow() -> str:
        async with agent.run_stream(ASK) as stream:
            return await stream.get_output()

    assert asyncio.run(follow()) == SAYS


def _form():
    import pydantic

    class Item(pydantic.BaseModel):
        kind: Literal["a", "b"]

    class Form(pydantic.BaseModel):
        items: list[Item]
        count: Literal[1, 2]

    return Form


def pydantic_ai_form(proxy: Proxy) -> None:
    form = _form()
    agent = _pydantic_ai(proxy, output_type=form, model_settings={"max_tokens": 400, "seed": 1})
    assert isinstance(agent.run_sync("Fill it in.").output, form)


def instructor(proxy: Proxy) -> None:
    import instructor as library
    import openai

    form = _form()
    for mode in (library.Mode.TOOLS, library.Mode.TOOLS_STRICT, library.Mode.JSON_SCHEMA):
        client = library.from_openai(openai.OpenAI(base_url=proxy.url, api_key="none"), mode=mode)
        filled = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "Fill it in."}], response_model=form, max_tokens=400,
            max_retries=0, seed=1,
        )  # fmt: skip
        assert isinstance(filled, form)


def autogen(proxy: Proxy) -> None:
    from autogen_agentchat.agents import AssistantAgent
    from autogen_ext.models.openai import OpenAIChatCompletionClient

    facts = {
        "vision": False, "function_calling": True, "json_output": True, "family": "unknown", "structured_output": True,
    }  # fmt: skip
    client = OpenAIChatCompletionClient(model="tiny", base_url=proxy.url, api_key="none", model_info=facts)
    proxy.texts = [CALL, SAYS]
    agent = AssistantAgent("agent", client, tools=[get_weather], reflect_on_tool_use=True)
    assert asyncio.run(agent.run(task=ASK)).messages[-1].content == SAYS


def litellm(proxy: Proxy) -> None:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm as library

    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool = {
        "type": "function",
        "function": {"name": "get_weather", "description": "Weather", "parameters": schema},
    }
    rules = {"model": "openai/tiny", "api_base": proxy.url, "api_key": "none", "tools": [tool]}
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ASK}]
    proxy.texts = [CALL, SAYS, CALL]
    first = library.completion(messages=messages, **rules).choices[0].message
    [call] = first.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    result = {"role": "tool", "tool_call_id": call.id, "content": "18"}
    assert library.completion(messages=[*messages, first, result], **rules).choices[0].message.content == SAYS
    streamed = library.stream_chunk_builder(list(library.completion(messages=messages, stream=True, **rules)))
    [call] = streamed.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Paris"}


def _openai_agent(proxy: Proxy, model_class: str, **arguments):
    import agents
    import openai

    agents.set_tracing_disabled(True)
    client = openai.AsyncOpenAI(base_url=proxy.url, api_key="none")
    model = getattr(agents, model_class)(model="tiny", openai_client=client)
    tools = [agents.function_tool(get_weather)]
    return agents.Agent(name="agent", instructions="Be brief.", tools=tools, model=model, **arguments)


def openai_agents_chat(proxy: Proxy, model_class: str = "OpenAIChatCompletionsModel") -> None:
    from agents import Runner

    agent = _openai_agent(proxy, model_class)

    async def run() -> None:
        proxy.texts = [CALL, SAYS]
        assert (await Runner.run(agent, ASK)).final_output == SAYS
        proxy.texts = [CALL, SAYS]
        streamed = Runner.run_streamed(agent, ASK)
        async for _ in streamed.stream_events():
            pass
        assert streamed.final_output == SAYS

    asyncio.run(run())


def openai_agents_responses(proxy: Proxy) -> None:
    openai_agents_chat(proxy, "OpenAIResponsesModel")


def openai_agents_form(proxy: Proxy) -> None:
    from agents import Runner

    form = _form()
    agent = _openai_agent(proxy, "OpenAIChatCompletionsModel", output_type=form)
    assert isinstance(Runner.run_sync(agent, "Fill it in.").final_output, form)


PROGRAMS = {
    "langchain": (langchain, "langchain-openai"),
    "langchain-streaming": (langchain_streaming, "langchain-openai"),
    "llama-index": (llama_index, "llama-index-llms-openai-like"),
    "pydantic-ai": (pydantic_ai, "pydantic-ai-slim"),
    "pydantic-ai-streaming": (pydantic_ai_streaming, "pydantic-ai-slim"),
    "pydantic-ai-form": (pydantic_ai_form, "pydantic-ai-slim"),
    "instructor": (instructor, "instructor"),
    "autogen": (autogen, "autogen-ext"),
    "litellm": (litellm, "litellm"),
    "openai-agents-chat": (openai_agents_chat, "openai-agents"),
    "openai-agents-responses": (openai_agents_responses, "openai-agents"),
    "openai-agents-form": (openai_agents_form, "openai-agents"),
}


def main(base_url: str, model: str, *names: str) -> int:
    folder = None
    if names[:1] == ("--record",):
        folder, names = Path(names[1]), names[2:]
    os.environ.setdefault("OPENAI_API_KEY", "none")
    failed = 0
    for name in names or PROGRAMS:
        program, package = PROGRAMS[name]
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            print(f"{name}: skipped, {package} is not installed")
            continue
        proxy = Proxy(base_url, model)
        try:
            program(proxy)
            print(f"{name}: ok with {package} {version}")
        except Exception:
            failed += 1
            print(f"{name}: failed with {package} {version}")
            traceback.print_exc()
        finally:
            proxy.close()
        if folder is not None:
            recorded = {"client": f"{package} {version}", "turns": proxy.turns}
            (folder / f"{name}.json").write_text(json.dumps(recorded, indent=1, ensure_ascii=False) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
