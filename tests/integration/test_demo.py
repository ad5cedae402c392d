"""`understudy demo`, run as a newcomer runs it: one command, and the output tells the story."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from support.process import Output, end
from support.waiting import until
from support.wire import ask, chat
from understudy.demo.show import KILLED_AFTER_WORDS

COMMAND = [sys.executable, "-m", "understudy", "demo"]


def children_of(folder: Path) -> list[str]:
    """Command lines of living processes that know the folder in which the demo keeps its files."""
    lines = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                lines.append(
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode() + (entry / "environ").read_bytes().decode()
                )
            except OSError:
                continue
    return [line for line in lines if str(folder) in line]


def answers(output: str) -> list[str]:
    """Read the answers that the demo printed, each with its lines joined."""
    return [" ".join(found.split()) for found in re.findall(r"^   < (.*?)\n\n", output, re.DOTALL | re.MULTILINE)]


def test_the_demo_shows_an_answer_that_goes_on_a_failover_and_a_return_in_less_than_fifteen_seconds(tmp_path: Path) -> None:
    started_at_s = time.monotonic()
    done = subprocess.run(
        COMMAND, capture_output=True, text=True, timeout=30, env={**os.environ, "TMPDIR": str(tmp_path)}, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - started_at_s < 15.0
    told = [line.split()[1::2] for line in done.stdout.splitlines() if "X-Understudy-Backend:" in line]
    # The head of the broken answer was the primary's.
    assert told[:2] == [["pi", "1"], ["pi", "1"]]
    assert told[2][0] == "laptop"
    assert told[3] == ["pi", "1"]
    uncut, broken, *_ = answers(done.stdout)
    begun, rest = broken.split(" [laptop goes on] ")
    assert f"{begun} {rest}" == uncut
    assert len(begun.split()) >= KILLED_AFTER_WORDS
    assert "down" in done.stdout.partition("3. The client asks on")[2].partition("4. The primary comes back.")[0]
    assert list(tmp_path.iterdir()) == []
    assert children_of(tmp_path) == []


def test_the_demo_stays_until_ctrl_c_and_then_leaves_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen([*COMMAND, "--stay"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
    assert process.stdout is not None
    output = Output(process.stdout, "demo")
    try:
        line = output.wait_line(lambda text: "curl" in text, 30.0)
        port = int(line.partition("127.0.0.1:")[2].partition("/")[0])
        assert ask(port, body=chat(model="demo")).backend == "pi"
        process.send_signal(signal.SIGINT)
        assert process.wait(10.0) == 0
    finally:
        end(process)
        output.close()
    until(lambda: not children_of(tmp_path), "every child gone", timeout_s=5.0)
    assert list(tmp_path.iterdir()) == []


def test_a_demo_that_is_stopped_half_way_takes_its_children_with_it(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
    assert process.stdout is not None
    output = Output(process.stdout, "demo")
    try:
        output.wait_line(lambda text: text.startswith("1."), 30.0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10.0) != 0
    finally:
        end(process)
        output.close()
    until(lambda: not children_of(tmp_path), "every child gone", timeout_s=5.0)
    assert list(tmp_path.iterdir()) == []


def test_a_demo_that_cannot_run_says_so_in_one_line(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    environment = {
        **os.environ,
        "TMPDIR": str(missing),
        "TEMP": str(missing),
        "TMP": str(missing),
        "PYTHONPATH": str(broken_aiohttp(tmp_path)),
    }
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=30, env=environment, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("understudy: the demo could not be played: ")
    assert done.stderr.count("\n") == 1


def broken_aiohttp(folder: Path) -> Path:
    """Make a folder in which a module `aiohttp` fails, so that the demo's engines cannot start."""
    place = folder / "broken"
    place.mkdir()
    (place / "aiohttp.py").write_text("raise OSError('no aiohttp today')\n")
    return place
