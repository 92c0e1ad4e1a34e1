"""The whole engine on a GPU: graphs, two streams of work, precision, memory. Run with `scripts/test tests/gpu`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

pytestmark = pytest.mark.gpu

TEXT = "The morning train was late again, so we walked along the river."


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Full-size random weights."""
    import make_checkpoint  # noqa: PLC0415 - it loads all of chatterbox-tts

    directory = tmp_path_factory.mktemp("model") / "full"
    make_checkpoint.write_checkpoint(directory, size="full")
    found: Path = directory
    return found


@pytest.fixture(scope="module")
def tts(checkpoint: Path) -> Iterator[object]:
    from workers.engine.chatterbox.options import SpeechOptions  # noqa: PLC0415 - needs torch with CUDA
    from workers.engine.chatterbox.tts import ChatterboxTTS  # noqa: PLC0415 - same

    with ChatterboxTTS.from_local(checkpoint, "cuda", speech=SpeechOptions(max_tokens=200)) as opened:
        yield opened


def test_mel_in_bf16_is_near_that_in_fp32(checkpoint: Path) -> None:
    """The estimator in bfloat16 moves a mel frame by less than 0.05 on average, upstream's solver being the measure."""
    from workers.engine.chatterbox.conditionals import DevicePrompt  # noqa: PLC0415 - needs torch with CUDA
    from workers.engine.chatterbox.s3gen import FlowInput, S3Gen  # noqa: PLC0415 - same
    from workers.engine.chatterbox.weights import TensorFile, read_conditionals  # noqa: PLC0415 - same

    device = torch.device("cuda")
    gen = read_conditionals(checkpoint / "conds.pt")["gen"]
    prompt = DevicePrompt(*(gen[name][0].to(device) for name in ("prompt_token", "prompt_feat", "embedding")))
    flow = FlowInput(prompt, list(range(100, 160)), 0, last=True, seed=5)
    file = TensorFile(checkpoint / "s3gen.safetensors")
    with torch.inference_mode():
        exact, rounded = (
            S3Gen(file, device=device, dtype=dtype).mel([flow])[0] for dtype in (torch.float32, torch.bfloat16)
        )
    assert (exact - rounded).abs().mean() < 0.05


def test_euler_step_replayed_equals_eager(checkpoint: Path) -> None:
    """A captured step of padded rows gives what the eager one gives, and does not wait for the device."""
    from workers.engine.chatterbox.graphs import GraphPool  # noqa: PLC0415 - needs torch with CUDA
    from workers.engine.chatterbox.s3gen import EulerBatch, S3Gen  # noqa: PLC0415 - same
    from workers.engine.chatterbox.weights import TensorFile  # noqa: PLC0415 - same

    device = torch.device("cuda")
    with torch.inference_mode():
        s3gen = S3Gen(TensorFile(checkpoint / "s3gen.safetensors"), device=device, dtype=torch.bfloat16)
        eager = EulerBatch(s3gen, 640, 4, ragged=True)
        captured = EulerBatch(s3gen, 640, 4, ragged=True, pool=GraphPool())
        captured.capture(4)
        generator = torch.Generator(device).manual_seed(0)
        lengths = (640, 500, 577)
        rows = []
        for length in lengths:
            fixed = torch.randn(length, 240, device=device, generator=generator)
            noise = torch.randn(length, 80, device=device, generator=generator)
            rows.append((eager.place(fixed, noise, "standard"), captured.place(fixed, noise, "standard")))
        for _ in range(10):
            eager.step([row for row, _ in rows])
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(10):
                assert captured.step([row for _, row in rows])
        finally:
            torch.cuda.set_sync_debug_mode("default")
        for length, (first, second) in zip(lengths, rows, strict=True):
            torch.testing.assert_close(eager.take(first, length), captured.take(second, length), atol=0.05, rtol=0.05)


def test_streamed_is_as_long_as_whole(tts: object) -> None:
    """The same seed gives as many samples hop by hop as at once, all of them finite."""
    from workers.engine.chatterbox.tts import ChatterboxTTS  # noqa: PLC0415 - needs torch with CUDA

    assert isinstance(tts, ChatterboxTTS)
    whole = tts.generate(TEXT, seed=3)
    streamed = torch.cat(list(tts.generate_stream(TEXT, seed=3)), dim=1)
    assert whole.shape == streamed.shape
    assert torch.isfinite(streamed).all()


def test_memory_is_flat_over_many_requests(tts: object) -> None:
    """After the graphs have been recorded, two hundred requests leave the device's memory as it was."""
    from workers.engine.chatterbox.tts import ChatterboxTTS  # noqa: PLC0415 - needs torch with CUDA

    assert isinstance(tts, ChatterboxTTS)

    def some(first: int) -> None:
        requests = [{"text": TEXT, "seed": first + n, "cfg_weight": 0.5 * (n % 2)} for n in range(20)]
        assert all(torch.isfinite(sound).all() for sound in tts.generate_many(requests))

    some(0)
    before = torch.cuda.memory_allocated()
    for batch in range(10):
        some(20 * batch)
    assert torch.cuda.memory_allocated() - before < 64 * 2**20
