"""S3Gen's estimator: the velocity of a noisy mel spectrogram towards the speech that its tokens stand for.

Upstream's ConditionalDecoder for Chatterbox: a causal one-level U-Net of residual convolutions and transformer blocks
whose attention sees all frames. Frames lie in the second dimension here, so that every convolution is a matrix product.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.engine.chatterbox.layers import Loader, attend, key_bias
from workers.engine.chatterbox.weights import TensorFile

MEL = 80
_INPUT = 4 * MEL
_DIM = 256
_TIME = 1024
_HEADS = 8
_HEAD = 64
_HIDDEN = 1024


class _Resnet:
    """Two causal convolutions with the time between them, and a way around."""

    def __init__(self, load: Loader, inner: int) -> None:
        self._first = load.convolution("block1.block.0", inner, _DIM, 3)
        self._first_norm = load.norm("block1.block.2", _DIM)
        self._second = load.convolution("block2.block.0", _DIM, _DIM, 3)
        self._second_norm = load.norm("block2.block.2", _DIM)
        around = load.raw("res_conv.weight", _DIM, inner, 1)[..., 0]
        self._around = load.affine(around, load.raw("res_conv.bias", _DIM))
        self.time_weight = load.raw("mlp.1.weight", _DIM, _TIME)
        self.time_bias = load.raw("mlp.1.bias", _DIM)

    def __call__(self, x: Tensor, time: Tensor) -> Tensor:
        """x [N, T, inner] and this block's part of the time [N, 1, dim] to [N, T, dim]."""
        h = F.mish(self._first_norm(self._first(x))) + time
        h = F.mish(self._second_norm(self._second(h)))
        return h + self._around(x)


class _Transformer:
    """Attention among all frames and a feed-forward, both normalised before."""

    def __init__(self, load: Loader) -> None:
        attention = load.below("attn1")
        width = _HEADS * _HEAD
        self._qkv = load.affine(torch.cat([attention.raw(f"to_{name}.weight", width, _DIM) for name in "qkv"]), None)
        self._out = attention.linear("to_out.0", width, _DIM)
        self._norm_attention = load.norm("norm1", _DIM)
        self._norm_feed = load.norm("norm3", _DIM)
        self._up = load.linear("ff.net.0.proj", _DIM, _HIDDEN, activation="gelu")
        self._down = load.linear("ff.net.2", _HIDDEN, _DIM)

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        rows, length, _ = x.shape
        q, k, v = self._qkv(self._norm_attention(x)).view(rows, length, 3, _HEADS, _HEAD).permute(2, 0, 3, 1, 4)
        attended = attend(q, k, v, bias).transpose(1, 2).reshape(rows, length, _HEADS * _HEAD)
        x = x + self._out(attended)
        return x + self._down(self._up(self._norm_feed(x)))


class _Stage:
    """A residual block and the transformer blocks behind it."""

    def __init__(self, load: Loader, inner: int) -> None:
        self.resnet = _Resnet(load.below("0"), inner)
        self._blocks = [_Transformer(load.below(f"1.{n}")) for n in range(load.count("1"))]

    def __call__(self, x: Tensor, time: Tensor, bias: Tensor | None) -> Tensor:
        x = self.resnet(x, time)
        for block in self._blocks:
            x = block(x, bias)
        return x


class Estimator:
    """The velocity field. Raises `ModelInvalid` when a part is missing."""

    def __init__(self, file: TensorFile, *, device: torch.device, dtype: torch.dtype) -> None:
        load = Loader(file, "flow.decoder.estimator.", device, dtype)
        self.dtype = dtype
        self._device = device
        self._down = _Stage(load.below("down_blocks.0"), _INPUT)
        self._after_down = load.convolution("down_blocks.0.2", _DIM, _DIM, 3)
        self._middle = [_Stage(load.below(f"mid_blocks.{n}"), _DIM) for n in range(load.count("mid_blocks"))]
        self._up = _Stage(load.below("up_blocks.0"), 2 * _DIM)
        self._after_up = load.convolution("up_blocks.0.2", _DIM, _DIM, 3)
        self._final = load.convolution("final_block.block.0", _DIM, _DIM, 3)
        self._final_norm = load.norm("final_block.block.2", _DIM)
        weight = load.raw("final_proj.weight", MEL, _DIM, 1)[..., 0]
        self._project = load.affine(weight, load.raw("final_proj.bias", MEL))
        self._time = [
            load.raw(f"time_mlp.linear_{part}.{kind}", *shape)
            for part, inner in ((1, _INPUT), (2, _TIME))
            for kind, shape in (("weight", (_TIME, inner)), ("bias", (_TIME,)))
        ]

    @property
    def _stages(self) -> list[_Stage]:
        return [self._down, *self._middle, self._up]

    def embed_times(self, times: Tensor) -> Tensor:
        """float32 times [K] between 0 and 1 to what every residual block adds for them, [K, blocks, dim].

        Sinusoids of 1000 t, as upstream's SinusoidalPosEmb has them, then its two-layer perceptron and each block's own
        projection. Independent of everything else, so computed once for all the times a solver uses.
        """
        half = _INPUT // 2
        rates = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10_000) / (half - 1)))
        angles = 1000 * times.float()[:, None] * rates
        first, first_bias, second, second_bias = self._time
        x = F.linear(torch.cat([angles.sin(), angles.cos()], dim=-1), first, first_bias)
        x = F.mish(F.linear(F.silu(x), second, second_bias))
        embedded = [F.linear(x, stage.resnet.time_weight, stage.resnet.time_bias) for stage in self._stages]
        return torch.stack(embedded, dim=1).to(self._device, self.dtype)

    def __call__(self, x: Tensor, time: Tensor, lengths: Tensor | None) -> Tensor:
        """Input [N, T, 320] and times as embedded [N, blocks, dim] to velocities [N, T, 80].

        The input's channels are the noisy mel, the tokens' mean, the speaker and the prompt's mel. `lengths` [N] says
        how many frames are real; None says all. What stands behind a row's length comes out without meaning, and
        nothing before it depends on it: convolutions look back only, and attention is kept away.
        """
        bias = None if lengths is None else key_bias(lengths, x.shape[1], x.dtype)
        times = time[:, :, None].unbind(1)
        x = skip = self._down(x, times[0], bias)
        x = self._after_down(x)
        for stage, when in zip(self._middle, times[1:-1], strict=True):
            x = stage(x, when, bias)
        x = self._up(torch.cat([x, skip], dim=-1), times[-1], bias)
        x = F.mish(self._final_norm(self._final(self._after_up(x))))
        return self._project(x)
