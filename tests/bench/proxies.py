"""Start, watch and stop the processes that a benchmark run consists of.

Called by bench.measure. Pins the proxy to one core and everything else to another where there are two; reads CPU time and
memory from /proc, so it needs Linux. Never judges a figure.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

HERE = Path(__file__).parent
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
CORES = sorted(os.sched_getaffinity(0))
ASK = json.dumps({"model": "bench", "messages": [{"role": "user", "content": "Say something."}]}).encode()

NGINX = """daemon off; master_process off; worker_processes 1; pid {work}/nginx.pid; error_log {work}/nginx.err;
events {{ worker_connections 20000; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_temp_path {work}/body; proxy_temp_path {work}/proxy;
  fastcgi_temp_path {work}/f; uwsgi_temp_path {work}/u; scgi_temp_path {work}/s;
  upstream engine {{ server 127.0.0.1:{engine} max_fails=3 fail_timeout=10s; keepalive 512; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
  }}
}}
"""
# Everything at its default, so that the figure is what an operator gets.
UNDERSTUDY = """listen: 127.0.0.1:{port}
admin: {{listen: 127.0.0.1:{admin}}}
backends:
  - {{name: engine, url: "http://127.0.0.1:{engine}", engine: openai}}
log: {{format: json, level: info}}
"""


class BenchError(Exception):
    """The benchmark cannot run here; the text says why and what would help."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """One running contender; `first_answer_s` is the time from its start to its first 200."""

    pid: int
    port: int
    first_answer_s: float

    def cpu_s(self) -> float:
        """Seconds of CPU, user and system, that the proxy has used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def rss_bytes(self) -> int:
        """Resident memory of the proxy now."""
        return int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES


def contenders() -> list[str]:
    """Name what can be measured here: Understudy always, nginx first where it is installed."""
    return ["nginx", "understudy"] if _nginx() else ["understudy"]


def compile_tools(work: Path) -> None:
    """Compile the engine and the load generator into `work`; raises BenchError without a C compiler."""
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if compiler is None:
        raise BenchError("a C compiler is needed for the engine and the load; on Debian: apt install gcc libc6-dev")
    for name in ("engine", "load"):
        subprocess.run([compiler, "-O2", "-o", str(work / name), str(HERE / f"{name}.c")], check=True)


@contextmanager
def running_engine(work: Path) -> Iterator[int]:
    """Run the stand-in engine; yields its port."""
    port = free_port()
    with _running([str(work / "engine"), str(port)], work, "engine", core=1) as process:
        _wait_for_answer(process, port, time.monotonic(), work / "engine.log")
        yield port


@contextmanager
def running_proxy(name: str, engine_port: int, work: Path) -> Iterator[Proxy]:
    """Run one contender in front of the engine until it answers; raises BenchError with its last words if it never does."""
    port = free_port()
    words = {"work": work, "port": port, "engine": engine_port, "admin": free_port()}
    if name == "nginx":
        file = work / "nginx.conf"
        file.write_text(NGINX.format(**words), encoding="utf-8")
        command = [_nginx(), "-e", str(work / "nginx.err"), "-c", str(file)]
    else:
        file = work / "understudy.yaml"
        file.write_text(UNDERSTUDY.format(**words), encoding="utf-8")
        command = [str(Path(sys.executable).parent / "understudy"), "serve", "-c", str(file)]
    started_at_s = time.monotonic()
    with _running(command, work, name, core=0) as process:
        answered_at_s = _wait_for_answer(process, port, started_at_s, work / f"{name}.log")
        yield Proxy(process.pid, port, answered_at_s - started_at_s)


def run_load(work: Path, *words: str) -> dict[str, float]:
    """Run the load generator to its end; returns what it saw (see load.c)."""
    done = subprocess.run([*_pinned(1), str(work / "load"), *words], capture_output=True, text=True, check=True)
    seen: dict[str, float] = json.loads(done.stdout)
    return seen


@contextmanager
def held_streams(work: Path, port: int, count: int) -> Iterator[None]:
    """Hold so many streams open, each 2 KiB into its answer, for as long as the block lasts."""
    command = [*_pinned(1), str(work / "load"), "hold", str(port), str(count)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        seen = json.loads(_stream(process.stdout).readline())
        if seen["broken"]:
            raise BenchError(f"{seen['broken']} of {count} held streams broke")
        yield
    finally:
        process.communicate()


def free_port() -> int:
    """Ask the kernel for a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _nginx() -> str:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or ""


def _pinned(core: int) -> list[str]:
    return ["taskset", "-c", str(CORES[core])] if len(CORES) > 1 and shutil.which("taskset") else []


@contextmanager
def _running(command: list[str], work: Path, name: str, core: int) -> Iterator[subprocess.Popen[bytes]]:
    with (work / f"{name}.log").open("wb") as log:
        process = subprocess.Popen([*_pinned(core), *command], cwd=work, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()


def _wait_for_answer(process: subprocess.Popen[bytes], port: int, started_at_s: float, log: Path) -> float:
    problem: object = "it ended at once"
    while time.monotonic() < started_at_s + 20 and process.poll() is None:
        try:
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/v1/chat/completions", ASK, {"content-type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=10):
                return time.monotonic()
        except OSError as error:
            problem = error
            time.sleep(0.01)
    raise BenchError(f"{log.stem} never answered: {problem}\n{log.read_text(encoding='utf-8', errors='replace')[-1000:]}")


def _stream(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
