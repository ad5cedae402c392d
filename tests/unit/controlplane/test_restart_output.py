"""What is kept of a process's output: cut, printable, bounded; and how much of it the log gets."""

from collections.abc import Callable

import pytest

from understudy.controlplane.restart_output import (
    LINE_CHARS_MAX,
    LINES_KEPT_MAX,
    LINES_PER_READ_MAX,
    OUT_OF_MEMORY_COUNTS_S,
    LineShare,
    Output,
)


class Clock:
    """Time that goes on when the play says so, with the timers that wait in it."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        self.timers.append((self.now_s + delay_s, call))

    def go_on(self, duration_s: float) -> None:
        self.now_s += duration_s
        due = [timer for timer in self.timers if timer[0] <= self.now_s]
        self.timers = [timer for timer in self.timers if timer[0] > self.now_s]
        for _, call in due:
            call()


def output_of(*pieces: bytes) -> Output:
    output = Output(lambda: 0.0)
    for piece in pieces:
        output.feed(piece)
    output.end()
    return output


def test_lines_are_put_together_from_pieces_that_end_anywhere() -> None:
    whole = "eins\nzwei äöü\r\ndrei".encode()
    for cut in range(len(whole)):
        assert output_of(whole[:cut], whole[cut:]).lines == ("eins", "zwei äöü", "drei")


def test_only_the_last_lines_stay_and_empty_ones_never() -> None:
    output = output_of(b"".join(b"line %d\n\n" % i for i in range(100)))
    assert output.lines == tuple(f"line {i}" for i in range(100 - LINES_KEPT_MAX, 100))


def test_a_line_without_end_is_cut_and_takes_no_more_memory() -> None:
    output = Output(lambda: 0.0)
    for _ in range(100):
        output.feed(b"x" * 65536)
    assert len(output._pending) < 65536
    output.feed(b"\nnext\n")
    assert output.lines == ("x" * LINE_CHARS_MAX, "next")


def test_control_characters_reach_nobody_and_colors_are_left_out() -> None:
    output = output_of(b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07 \x00\xff\n")
    assert output.lines == (r"red \x1b]0;title\x07 \x00" + "\ufffd",)
    assert all(line.isprintable() for line in output.lines)


def test_a_bar_of_progress_is_one_line_of_its_last_state() -> None:
    assert output_of(b"loading 1%\rloading 50%\rloading 100%\r\ndone\n").lines == ("loading 100%", "done")


def test_of_a_flood_the_last_lines_are_read_and_the_others_counted() -> None:
    heard: list[tuple[list[str], int]] = []
    output = Output(lambda: 0.0, lambda lines, left_out: heard.append((lines, left_out)))
    output.feed(b"".join(b"%d\n" % i for i in range(10_000)))
    ((lines, left_out),) = heard
    assert len(lines) + left_out == 10_000
    assert len(lines) == LINES_PER_READ_MAX
    assert lines[-1] == "9999"
    assert lines[0] == str(left_out)


@pytest.mark.parametrize(
    "line",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4096.00 MiB on device 0: cudaMalloc failed: out of memory",
        "llama_kv_cache_init: failed to allocate buffer for kv cache",
        "ggml_vulkan: Device memory allocation failed: vk::Device::allocateMemory: ErrorOutOfDeviceMemory",
        "Out of memory: Killed process 4711 (llama-server)",
        "ollama.service: A process of this unit has been killed by the OOM killer.",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "ValueError: No available memory for the cache blocks.",
        "fork: Cannot allocate memory",
    ],
)
def test_the_words_of_missing_memory_are_known(line: str) -> None:
    assert output_of(line.encode() + b"\n").tells_out_of_memory


@pytest.mark.parametrize("line", ["memory: 12 GiB free", "the room is out", "bedroom killer", ""])
def test_other_words_say_nothing_of_memory(line: str) -> None:
    assert not output_of(line.encode() + b"\n").tells_out_of_memory


def test_the_words_are_known_when_they_come_in_pieces() -> None:
    assert output_of(b"CUDA out of", b" memory").tells_out_of_memory


def test_a_lack_of_memory_long_ago_says_nothing_of_now() -> None:
    clock = Clock()
    output = Output(lambda: clock.now_s)
    output.feed(b"CUDA out of memory\n")
    clock.go_on(OUT_OF_MEMORY_COUNTS_S)
    assert output.tells_out_of_memory
    clock.go_on(1.0)
    assert not output.tells_out_of_memory


def share(clock: Clock) -> tuple[LineShare, list[tuple[str, int]]]:
    told: list[tuple[str, int]] = []
    return LineShare(lambda line, left_out: told.append((line, left_out)), 3, clock.call_later), told


def test_the_log_gets_so_many_lines_of_a_second_and_then_the_last_with_the_number_of_the_others() -> None:
    clock = Clock()
    part, told = share(clock)
    part.hear(["a", "b", "c", "d", "e", "f"], 0)
    assert told == [("a", 0), ("b", 0), ("c", 0)]
    clock.go_on(1.0)
    assert told[3:] == [("f", 2)]
    part.hear(["g", "h", "i"], 0)
    assert told[4:] == [("g", 0), ("h", 0)], "the line at the second's beginning counts"
    clock.go_on(1.0)
    clock.go_on(1.0)
    assert told[6:] == [("i", 0)]


def test_lines_that_were_left_out_before_stand_with_the_next_that_is_told() -> None:
    clock = Clock()
    part, told = share(clock)
    part.hear(["a"], 1000)
    assert told == [("a", 1000)]


def test_nothing_is_told_twice_and_no_timer_runs_for_a_silent_process() -> None:
    clock = Clock()
    part, told = share(clock)
    part.hear(["a", "b", "c", "d"], 0)
    part.flush()
    assert told[-1] == ("d", 0)
    clock.go_on(1.0)
    clock.go_on(1.0)
    assert len(told) == 4
    assert not clock.timers
