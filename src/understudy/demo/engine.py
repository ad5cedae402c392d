"""A small engine with made-up but repeatable answers, so that Understudy can be tried without a model.

Speaks the OpenAI dialect and Ollama's, streamed and not, at one token per `token_delay_s`, and renders and continues as an Ollama
does; what it says is in demo.part. Run by demo.show as a process of its own (`python -m understudy.demo.engine`) and by the
integration tests. Never loads anything, keeps nothing between requests, and is no part of the daemon.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import time
import zlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from understudy.demo.part import Part, compose, embed, render


class RequestError(Exception):
    """The request cannot be answered: an HTTP status and words for the client."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


def now_text() -> str:
    """Return the time of day as Ollama writes it (RFC 3339, UTC)."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


class Engine:
    """The engine's routes. `model` is the one model it has; `token_delay_s` is the pause before each token, in seconds."""

    def __init__(self, model: str, token_delay_s: float) -> None:
        self._model = model
        self._token_delay_s = token_delay_s

    def make_app(self) -> web.Application:
        """Return a fresh aiohttp application with every route of both dialects."""
        app = web.Application(client_max_size=32 * 1024 * 1024)
        app.add_routes(
            [
                web.get("/", self._greet),
                web.get("/api/version", self._version),
                web.get("/api/tags", self._tags),
                web.get("/api/ps", self._tags),
                web.get("/v1/models", self._models),
                web.post("/v1/chat/completions", self._openai_chat),
                web.post("/v1/completions", self._openai_completion),
                web.post("/v1/embeddings", self._openai_embeddings),
                web.post("/api/chat", self._ollama_chat),
                web.post("/api/generate", self._ollama_generate),
                web.post("/api/embed", self._ollama_embed),
            ]
        )
        return app

    async def _greet(self, _request: web.Request) -> web.Response:
        return web.Response(text="Ollama is running")

    async def _version(self, _request: web.Request) -> web.Response:
        return web.json_response({"version": "0.32.15"})

    async def _tags(self, request: web.Request) -> web.Response:
        entry: dict[str, Any] = {
            "name": f"{self._model}:latest",
            "model": f"{self._model}:latest",
            "size": 701272,
            "digest": f"{zlib.crc32(self._model.encode()):064x}",
            "details": {
                "parent_model": "",
                "format": "gguf",
                "family": "demo",
                "families": ["demo"],
                "parameter_size": "0",
                "quantization_level": "unknown",
            },
        }
        if request.path == "/api/ps":
            entry |= {"expires_at": "2318-01-01T00:00:00Z", "size_vram": 0, "context_length": 4096}
        else:
            entry |= {"modified_at": "2026-01-01T00:00:00Z", "capabilities": ["completion"]}
        return web.json_response({"models": [entry]})

    async def _models(self, _request: web.Request) -> web.Response:
        entry = {"id": f"{self._model}:latest", "object": "model", "created": 1, "owned_by": "library"}
        return web.json_response({"object": "list", "data": [entry]})

    # The OpenAI dialect.

    async def _openai_chat(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await self._read_body(request, wanted="messages")
        except RequestError as error:
            return _openai_refusal(error)
        prompt = render(body["messages"])
        if body.get("_debug_render_only"):
            # openai/openai.go, ToChatCompletion: an answer with nothing said, and the prompt beside it.
            head = {"id": "demo", "object": "chat.completion", "created": int(time.time()), "model": body["model"]}
            return web.json_response(head | {"choices": [], "_debug_info": {"rendered_template": prompt}})
        part = compose(prompt, body["model"], _tokens_max(body))
        return await self._tell_openai(request, body, part, "chat.completion")

    async def _openai_completion(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await self._read_body(request)
        except RequestError as error:
            return _openai_refusal(error)
        part = compose(_asking(body), body["model"], _tokens_max(body))
        return await self._tell_openai(request, body, part, "text_completion")

    async def _openai_embeddings(self, request: web.Request) -> web.Response:
        try:
            body = await self._read_body(request)
        except RequestError as error:
            return _openai_refusal(error)
        texts = body.get("input")
        texts = texts if isinstance(texts, list) else [texts]
        data = [{"object": "embedding", "index": i, "embedding": embed(str(text))} for i, text in enumerate(texts)]
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        return web.json_response({"object": "list", "data": data, "model": body["model"], "usage": usage})

    async def _tell_openai(self, request: web.Request, body: Mapping[str, Any], part: Part, kind: str) -> web.StreamResponse:
        is_chat = kind == "chat.completion"
        top = {"id": f"demo-{zlib.crc32(part.text.encode()):08x}", "created": int(time.time()), "model": part.model}
        usage = {
            "prompt_tokens": part.prompt_tokens,
            "completion_tokens": len(part.tokens),
            "total_tokens": part.prompt_tokens + len(part.tokens),
        }
        if not body.get("stream"):
            await self._pause(len(part.tokens))
            said: dict[str, Any] = {"message": {"role": "assistant", "content": part.text}} if is_chat else {"text": part.text}
            choice = {"index": 0, "finish_reason": part.reason, "logprobs": None} | said
            return web.json_response(top | {"object": kind, "choices": [choice], "usage": usage})

        def event(piece: dict[str, Any] | None, reason: str | None) -> bytes:
            named = {"delta": piece or {}} if is_chat else {"text": (piece or {}).get("content", "")}
            choice = {"index": 0, "finish_reason": reason, "logprobs": None} | named
            return _sse(top | {"object": f"{kind}.chunk" if is_chat else kind, "choices": [choice]})

        async def events() -> AsyncGenerator[bytes, None]:
            if is_chat:
                yield event({"role": "assistant", "content": ""}, None)
            for token in part.tokens:
                await self._pause(1)
                yield event({"content": token}, None)
            yield event(None, part.reason)
            if (body.get("stream_options") or {}).get("include_usage"):
                yield _sse(top | {"object": f"{kind}.chunk" if is_chat else kind, "choices": [], "usage": usage})
            yield b"data: [DONE]\n\n"

        return await _stream(request, "text/event-stream", events())

    # Ollama's dialect.

    async def _ollama_chat(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await self._read_body(request)
        except RequestError as error:
            return web.json_response({"error": error.words}, status=error.status)
        messages = body.get("messages")
        return await self._answer_ollama(request, body, render(messages) if messages and isinstance(messages, list) else "")

    async def _ollama_generate(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await self._read_body(request)
        except RequestError as error:
            return web.json_response({"error": error.words}, status=error.status)
        if not body.get("prompt"):
            return await self._answer_ollama(request, body, "")
        return await self._answer_ollama(request, body, str(body["prompt"]) if body.get("raw") else _asking(body))

    async def _ollama_embed(self, request: web.Request) -> web.Response:
        try:
            body = await self._read_body(request)
        except RequestError as error:
            return web.json_response({"error": error.words}, status=error.status)
        texts = body.get("input")
        texts = texts if isinstance(texts, list) else [texts]
        return web.json_response({"model": body["model"], "embeddings": [embed(str(text)) for text in texts]})

    async def _answer_ollama(self, request: web.Request, body: Mapping[str, Any], prompt: str) -> web.StreamResponse:
        """Answer with what follows `prompt`, or with the prompt itself where that is asked; "" only loads the model."""
        empty = _ollama_line(request, body, "")
        if not prompt:
            return web.json_response(empty | {"done": True, "done_reason": "load"})
        if body.get("_debug_render_only"):
            return web.json_response(empty | {"_debug_info": {"rendered_template": prompt}})
        return await self._tell_ollama(request, body, compose(prompt, body["model"], _tokens_max(body)))

    async def _tell_ollama(self, request: web.Request, body: Mapping[str, Any], part: Part) -> web.StreamResponse:
        """Tell `part` as NDJSON lines, or as one object."""
        started_at_s = time.monotonic()

        def last(piece: str) -> dict[str, Any]:
            duration_ns = int((time.monotonic() - started_at_s) * 1e9)
            counts = {"prompt_eval_count": part.prompt_tokens, "eval_count": len(part.tokens)}
            times = {"total_duration": duration_ns, "load_duration": 0, "prompt_eval_duration": 0, "eval_duration": duration_ns}
            return _ollama_line(request, body, piece) | {"done": True, "done_reason": part.reason} | counts | times

        if not body.get("stream", True):
            await self._pause(len(part.tokens))
            return web.json_response(last(part.text))

        async def lines() -> AsyncGenerator[bytes, None]:
            for token in part.tokens:
                await self._pause(1)
                yield json.dumps(_ollama_line(request, body, token)).encode() + b"\n"
            yield json.dumps(last("")).encode() + b"\n"

        return await _stream(request, "application/x-ndjson", lines())

    async def _read_body(self, request: web.Request, *, wanted: str = "") -> dict[str, Any]:
        """Return the request's JSON object, its model checked and `wanted` a list in it.

        Raises RequestError: 400 malformed, 404 a model it does not have.
        """
        try:
            body = json.loads(await request.read())
        except ValueError as error:
            raise RequestError(400, f"the body is not JSON: {error}") from error
        if not isinstance(body, dict) or not isinstance(body.get("model"), str) or not body["model"]:
            raise RequestError(400, "model is required")
        if body["model"].removesuffix(":latest") != self._model:
            raise RequestError(404, f"model '{body['model']}' not found")
        if wanted and not isinstance(body.get(wanted), list):
            raise RequestError(400, f"{wanted} must be a list")
        return body

    async def _pause(self, tokens: int) -> None:
        await asyncio.sleep(self._token_delay_s * tokens)


def _asking(body: Mapping[str, Any]) -> str:
    """Render a request that has a prompt instead of messages: as Ollama does, it becomes what the user says."""
    system = [{"role": "system", "content": body["system"]}] if body.get("system") else []
    return render([*system, {"role": "user", "content": body.get("prompt")}])


def _ollama_line(request: web.Request, body: Mapping[str, Any], piece: str) -> dict[str, Any]:
    """Write a line of an answer that goes on after it."""
    is_chat = request.path == "/api/chat"
    said: dict[str, Any] = {"message": {"role": "assistant", "content": piece}} if is_chat else {"response": piece}
    return {"model": body["model"], "created_at": now_text()} | said | {"done": False}


def _tokens_max(body: Mapping[str, Any]) -> int | None:
    """How many tokens the request wants at most, by whichever of the dialects' names; None for no bound."""
    options = body.get("options")
    named = options.get("num_predict") if isinstance(options, dict) else None
    for value in (body.get("max_completion_tokens"), body.get("max_tokens"), named):
        if isinstance(value, int) and value >= 0:
            return value
    return None


def _openai_refusal(refused: RequestError) -> web.Response:
    kind = "not_found_error" if refused.status == 404 else "invalid_request_error"
    error = {"message": refused.words, "type": kind, "param": None, "code": None}
    return web.json_response({"error": error}, status=refused.status)


def _sse(event: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


async def _stream(request: web.Request, content_type: str, pieces: AsyncGenerator[bytes, None]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": content_type, "Cache-Control": "no-cache"})
    try:
        await response.prepare(request)
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                await response.write(piece)
        await response.write_eof()
    except ConnectionResetError:
        # The client left; like a real engine, stop generating and say nothing.
        return response
    return response


async def serve(engine: Engine, port: int) -> None:
    """Listen on 127.0.0.1:`port` (0: a free one), print `READY PORT` and answer until cancelled. Raises OSError."""
    runner = web.AppRunner(engine.make_app(), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
        await site.start()
        sys.stdout.write(f"READY {runner.addresses[0][1]}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one engine until it is told to stop. Exit 0, or 1 when the port cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m understudy.demo.engine", description="a small engine to try Understudy with")
    parser.add_argument("--port", type=int, default=0, help="0: a free one; it is printed as READY PORT")
    parser.add_argument("--model", default="demo", help="the name of the one model")
    parser.add_argument("--token-delay-ms", type=float, default=20.0, help="pause before each token")
    args = parser.parse_args(argv)
    try:
        asyncio.run(serve(Engine(args.model, args.token_delay_ms / 1000), args.port))
    except KeyboardInterrupt:
        return 0
    except (OSError, OverflowError) as error:
        sys.stderr.write(f"the demo engine cannot listen on port {args.port}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
