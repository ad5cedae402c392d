"""One real llama.cpp server in this process: `python llama_process.py MODEL PORT`. Started by support.llama, never imported.

Runs with f32 arithmetic and without flash attention, so that every process writes the same text byte for byte.
"""

import signal
import sys

import xllamacpp  # type: ignore[import-untyped]  # a compiled module without stubs


def main() -> None:
    """Serve until killed; `READY URL` on standard output tells when."""
    wanted = xllamacpp.CommonParams()
    wanted.model.path, wanted.port = sys.argv[1], int(sys.argv[2])
    wanted.model_alias = {"tiny"}
    wanted.n_ctx, wanted.n_parallel, wanted.n_threads_http, wanted.verbosity = 8192, 2, 4, 0
    wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = 1
    wanted.endpoint_metrics = wanted.endpoint_slots = True
    wanted.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    wanted.cache_type_k = wanted.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(wanted)
    sys.stdout.write(f"READY {server.listening_address}\n")
    sys.stdout.flush()
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
