"""What is read out of the texts of engines and exporters, and that no text whatever breaks the reading."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from understudy.engines.figures import COUNT_MAX, LINES_MAX, Figures, read

# vLLM 0.32 with two data parallel ranks, cut to the lines around the wanted ones.
VLLM = b"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 5.0
vllm:num_requests_running{engine="1",model_name="tiny"} 3.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="tiny"} 2.0
vllm:num_requests_waiting{engine="1",model_name="tiny"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="tiny"} 0.75
vllm:prompt_tokens_total{engine="0",model_name="tiny"} 6.0
"""
# llama.cpp, build 11549, with --metrics.
LLAMACPP = b"""\
# HELP llamacpp:requests_processing Number of requests processing.
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 2
# HELP llamacpp:requests_deferred Number of requests deferred.
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 1
"""
SGLANG = b"""\
sglang:num_running_reqs{engine_type="unified",model_name="m",tp_rank="0",pp_rank="0"} 4.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",tp_rank="0",pp_rank="0"} 3.0
sglang:token_usage{engine_type="unified",model_name="m",tp_rank="0",pp_rank="0"} 0.28
"""
DCGM = b"""\
# HELP DCGM_FI_DEV_GPU_UTIL GPU utilization (in %).
# TYPE DCGM_FI_DEV_GPU_UTIL gauge
DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-aaaa",device="nvidia0",modelName="NVIDIA A10G",Hostname="gpu1"} 75
DCGM_FI_DEV_GPU_UTIL{gpu="1",UUID="GPU-bbbb",device="nvidia1",modelName="NVIDIA A10G",Hostname="gpu1"} 25
"""
MIG = b"""\
DCGM_FI_PROF_GR_ENGINE_ACTIVE{gpu="0",UUID="GPU-aaaa",GPU_I_PROFILE="3g.20gb",GPU_I_ID="1"} 0.5
DCGM_FI_PROF_GR_ENGINE_ACTIVE{gpu="0",UUID="GPU-aaaa",GPU_I_PROFILE="3g.20gb",GPU_I_ID="2"} 0.1
"""
NVIDIA_SMI = b'nvidia_smi_utilization_gpu_ratio{uuid="df6e7a7c-7314-46f8-abc4-b88b36dcf3aa"} 0.42\n'


def running(*lines: bytes) -> int | None:
    """What a text of these lines tells of the running ones."""
    figures = read(b"".join(line + b"\n" for line in lines))
    return figures.running if figures is not None else None


@pytest.mark.parametrize(
    ("text", "figures"),
    [
        pytest.param(VLLM, Figures(running=8, waiting=2, kv_used=0.75), id="vLLM"),
        pytest.param(LLAMACPP, Figures(running=2, waiting=1), id="llama.cpp"),
        pytest.param(SGLANG, Figures(running=4, waiting=3, kv_used=0.28), id="SGLang"),
        pytest.param(DCGM, Figures(gpu_busy=0.5), id="dcgm-exporter"),
        pytest.param(MIG, Figures(gpu_busy=0.3), id="dcgm-exporter, MIG"),
        pytest.param(NVIDIA_SMI, Figures(gpu_busy=0.42), id="nvidia_gpu_exporter"),
        pytest.param(VLLM + DCGM, Figures(running=8, waiting=2, kv_used=0.75, gpu_busy=0.5), id="one text for both"),
        pytest.param(b"process_cpu_seconds_total 1.5\n", None, id="nothing that is known"),
        pytest.param(b"", None, id="empty"),
    ],
)
def test_every_source_is_read_in_its_units(text: bytes, figures: Figures | None) -> None:
    assert read(text) == figures


def test_the_load_is_told_only_where_both_parts_are() -> None:
    assert Figures(running=3, waiting=2).load == 5
    assert Figures(running=3).load is None
    assert Figures(waiting=2).load is None


def test_tensor_parallel_ranks_of_sglang_tell_the_same_and_data_parallel_ones_add_up() -> None:
    line = 'sglang:num_running_reqs{dp_rank="%d",tp_rank="%d"} %d'
    told = [(0, 0, 4), (0, 1, 4), (1, 2, 3), (1, 3, 3)]
    assert running(*[(line % each).encode() for each in told]) == 7


def test_the_older_name_counts_only_where_the_newer_is_missing() -> None:
    older = b'vllm:gpu_cache_usage_perc{model_name="m"} 0.9\n'
    assert read(older) == Figures(kv_used=0.9)
    assert read(older + b'vllm:kv_cache_usage_perc{model_name="m"} 0.1\n') == Figures(kv_used=0.1)


@pytest.mark.parametrize(
    "rest",
    [
        b" NaN",
        b" +Inf",
        b" -1",
        b" 1_000",
        b" 0x10",
        b" ",
        b" many",
        b" 1 2 3",
        b" 1e999",
        b" %d" % (COUNT_MAX + 1),
        b'{engine="0} 1',
        b'{engine="0"',
        b" 1\r",
        b" \xff",
    ],
)
def test_a_line_that_cannot_be_read_spoils_its_name_and_no_other(rest: bytes) -> None:
    name = b"vllm:num_requests_running"
    assert running(name + rest) is None
    assert running(name + b" 3", name + rest) is None
    assert running(name + rest, name + b" 3") is None
    assert read(name + rest + b"\nvllm:num_requests_waiting 2\n") == Figures(waiting=2)


@pytest.mark.parametrize(
    "rest", [b" 3", b"\t3.0", b" 3e0", b" +3", b" 3.", b"{} 3", b' {a="x",} 3 1700000000000', b'{a="}{\\"\\\\"} 3']
)
def test_every_way_to_write_a_sample_is_read(rest: bytes) -> None:
    assert running(b"vllm:num_requests_running" + rest) == 3


@pytest.mark.parametrize(
    "line",
    [
        b"# vllm:num_requests_running 3",
        b"xvllm:num_requests_running 3",
        b"vllm:num_requests_running_total 3",
        b'other{a="\\nvllm:num_requests_running 3"} 1',
    ],
)
def test_what_only_looks_like_the_name_is_not_read(line: bytes) -> None:
    assert running(line) is None


def test_a_last_line_that_is_cut_is_not_read() -> None:
    assert read(b"vllm:num_requests_running 3\nvllm:num_requests_waiting 12") == Figures(running=3)


@pytest.mark.parametrize("text", [b"DCGM_FI_DEV_GPU_UTIL 101\n", b"nvidia_smi_utilization_gpu_ratio 1.01\n"])
def test_a_share_beyond_a_whole_is_none(text: bytes) -> None:
    assert read(text) is None


def test_more_lines_than_any_engine_has_tell_nothing() -> None:
    line = b"vllm:num_requests_running 1\n"
    assert read(line * LINES_MAX) == Figures(running=LINES_MAX)
    assert read(line * (LINES_MAX + 1)) is None


@given(
    st.binary()
    | st.lists(st.sampled_from([b"vllm:num_requests_running", b"{", b"}", b'"', b"\\", b" ", b"\n", b"1"])).map(b"".join)
)
def test_no_text_breaks_the_reading(text: bytes) -> None:
    figures = read(text)
    assert figures is None or figures != Figures()


@given(st.dictionaries(st.from_regex(r"[a-z][a-z_]{0,4}", fullmatch=True), st.text(max_size=10), max_size=4), st.integers(0, 999))
def test_a_sample_means_what_it_means_to_the_reference_parser(labels: dict[str, str], value: int) -> None:
    def quoted(text: str) -> str:
        return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')

    written = ",".join(f'{name}="{quoted(text)}"' for name, text in labels.items())
    line = f"vllm:num_requests_running{{{written}}} {value}\n"
    (family,) = text_string_to_metric_families(line)
    assert [sample.value for sample in family.samples] == [value]
    figures = read(line.encode("utf-8", "surrogatepass"))
    assert figures is not None
    assert figures.running == value
