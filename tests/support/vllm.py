"""A real vLLM on the CPU, in processes of its own, which a play may kill.

Runs from the environment that tests/integration/set_up_vllm.sh makes (`make test-vllm`). Takes about a minute to start and
3 GB of memory, so a play starts one for all its tests.
"""

import os
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from support.llama import free_port
from support.process import Output, end

READY_TIMEOUT_S = 300.0
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}


class VllmServer:
    """One vLLM with the model in folder `model`, served as "tiny". Use as a context manager: entered once it answers."""

    def __init__(self, environment: Path, model: Path, name: str = "vllm") -> None:
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._python = environment / "bin" / "python"
        self._model = model

    def __enter__(self) -> Self:
        words = f"--model {self._model} --host 127.0.0.1 --port {self.port} --served-model-name tiny"
        more = "--dtype float32 --max-model-len 4096 --enforce-eager"
        command = [str(self._python), "-m", "vllm.entrypoints.openai.api_server", *words.split(), *more.split()]
        # A session of its own, because its engine and workers are processes, too, and all of them must end.
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **ENVIRONMENT},
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._output = Output(self._process.stdout, self.name)
        try:
            self._output.wait_line(lambda text: "Application startup complete" in text, READY_TIMEOUT_S)
        except AssertionError:
            self.kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    def kill(self) -> None:
        """Kill all its processes at once; nothing when they are gone already."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            end(self._process)
            self._output.close()
