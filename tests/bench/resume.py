"""How long a client waits between the last piece before a break and the first one after it; part of `make bench`.

The engines are the scripted ones of tests/support, which answer at once, so that nearly all of it is the daemon's. Wall time, so
a figure to look at rather than to compare on a busy machine.
"""

import http.client
import json
import statistics
import time
from pathlib import Path

from support.breaks import Kind
from support.resume_stage import Stage, staged
from support.writing_cast import CHAT, Scene

PAIRS = (("llamacpp", "llamacpp"), ("vllm", "vllm"), ("ollama", "ollama"), ("ollama", "llamacpp"))


def measure_breaks(folder: Path, times: int) -> dict[str, tuple[float, float]]:
    """Return (median, worst) of the gap in milliseconds for each pair of engines; the first break of each pair is left out.

    What a model's template can do is asked once, with that first break.
    """
    found = {}
    for pair in PAIRS:
        place = folder / "-".join(pair)
        place.mkdir()
        with staged(place, *pair) as stage:
            gaps_ms = [_gap_ms(stage, Scene(*pair, CHAT), after=2 + i % 10) for i in range(times + 1)][1:]
        found[" to ".join(pair)] = (statistics.median(gaps_ms), max(gaps_ms))
    return found


def _gap_ms(stage: Stage, scene: Scene, *, after: int) -> float:
    """Have one answer broken after that many pieces, and measure what its client sees of it."""
    stage.fresh()
    stage.engines[0].breaks(Kind.RESET, after=after)
    client = http.client.HTTPConnection("127.0.0.1", stage.daemon.port, timeout=10.0)
    client.request("POST", scene.path, json.dumps(scene.body()), {"Content-Type": "application/json"})
    response = client.getresponse()
    last_at_s = seam_at_s = 0.0
    for line in iter(response.readline, b""):
        now_s = time.perf_counter()
        if line.startswith(b": understudy resumed"):
            seam_at_s = last_at_s
        elif line.startswith(b"data: "):
            if seam_at_s:
                client.close()
                return (now_s - seam_at_s) * 1e3
            last_at_s = now_s
    raise RuntimeError(f"an answer broken after {after} pieces did not go on")
