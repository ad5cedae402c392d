"""Real llama.cpp servers in processes of their own, which a play may freeze, kill and start again on the same port."""

import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from support.alive import freeze
from support.process import Output, end

PROGRAM = Path(__file__).with_name("llama_process.py")
READY_TIMEOUT_S = 30.0


def free_port() -> int:
    """Return a port that nobody listens on now; for programs that cannot say which one they got from port 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class LlamaServer:
    """One llama.cpp server with the model at `model`, listed as "tiny". Use as a context manager."""

    def __init__(self, model: Path, name: str = "llama") -> None:
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._model = model
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    def start(self) -> None:
        """Start it and return when it answers; AssertionError with its last words otherwise."""
        command = [sys.executable, str(PROGRAM), str(self._model), str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert self._process.stdout is not None
        self._output = Output(self._process.stdout, f"llama.{self.name}")
        self._output.wait_line(lambda text: text.startswith("READY"), READY_TIMEOUT_S)

    def freeze(self) -> None:
        """Stop the whole process where it stands (SIGSTOP); the kernel still accepts connections for it."""
        assert self._process is not None, f"{self.name} does not run"
        freeze(self._process.pid)

    def thaw(self) -> None:
        """Let it go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it at once (SIGKILL) and return when it is gone; nothing when it is gone already."""
        if self._process is not None:
            end(self._process)
            self._output.close()
            self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, f"{self.name} does not run"
        self._process.send_signal(number)
