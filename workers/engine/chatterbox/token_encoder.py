"""S3Gen's encoder: speech tokens, 25 for each second, to the mean of 50 mel frames.

Upstream's UpsampleConformerEncoder and what stands around it in CausalMaskedDiffWithXvec.inference: relative positions
after Shaw et al., https://arxiv.org/abs/1803.02155, in ESPnet's symmetric form.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.engine.chatterbox.layers import Loader, attend, key_bias

_DIM = 512
_HEADS = 8
_HIDDEN = 2048
_MEL = 80

VOCABULARY = 6561
LOOKAHEAD = 3
"""Tokens that an encoded token looks ahead: the last ones of an unfinished stream are not to be used."""
FRAMES_PER_TOKEN = 2


class _Layer:
    """One conformer layer as S3Gen has it: relative self-attention and a feed-forward, both normalised before."""

    def __init__(self, load: Loader) -> None:
        attention = load.below("self_attn")
        parts = [attention.raw(f"linear_{name}.weight", _DIM, _DIM) for name in "qkv"]
        shifts = [attention.raw(f"linear_{name}.bias", _DIM) for name in "qkv"]
        self._qkv = load.affine(torch.cat(parts), torch.cat(shifts))
        self._out = attention.linear("linear_out", _DIM, _DIM)
        self._positions = attention.raw("linear_pos.weight", _DIM, _DIM).to(load.device)
        self._content_bias = attention.tensor("pos_bias_u", _HEADS, _DIM // _HEADS)[:, None]
        self._position_bias = attention.tensor("pos_bias_v", _HEADS, _DIM // _HEADS)[:, None]
        self._norm_attention = load.norm("norm_mha", _DIM, 1e-12)
        self._norm_feed = load.norm("norm_ff", _DIM, 1e-12)
        self._up = load.linear("feed_forward.w_1", _DIM, _HIDDEN, activation="swish")
        self._down = load.linear("feed_forward.w_2", _HIDDEN, _DIM)
        self._keys = torch.zeros(0)

    def prepare(self, table: Tensor) -> None:
        """Project the relative positions [2 n - 1, dim] once for all."""
        keys = F.linear(table, self._positions).view(len(table), _HEADS, -1).transpose(0, 1)
        self._keys = keys.to(self._content_bias.dtype).contiguous()

    def __call__(self, x: Tensor, bias: Tensor) -> Tensor:
        rows, length, _ = x.shape
        q, k, v = self._qkv(self._norm_attention(x)).view(rows, length, 3, _HEADS, -1).permute(2, 0, 3, 1, 4)
        middle = self._keys.shape[1] // 2
        keys = self._keys[:, middle - length + 1 : middle + length]
        by_position = torch.matmul(q + self._position_bias, keys.transpose(1, 2)) / math.sqrt(q.shape[-1])
        attended = attend(q + self._content_bias, k, v, _shifted(by_position) + bias)
        x = x + self._out(attended.transpose(1, 2).reshape(rows, length, _DIM))
        return x + self._down(self._up(self._norm_feed(x)))


class TokenEncoder:
    """Speech tokens of several requests to the mean of their mel frames.

    `longest` is the largest number of tokens a row may have. Raises `ModelInvalid` when a part is missing.
    """

    def __init__(self, load: Loader, *, longest: int) -> None:
        encoder = load.below("encoder")
        self.longest = longest
        self._embedding = load.tensor("input_embedding.weight", VOCABULARY, _DIM)
        self._enter = _Entrance(encoder.below("embed"))
        ahead = encoder.below("pre_lookahead_layer")
        self._look = ahead.convolution("conv1", _DIM, _DIM, LOOKAHEAD + 1)
        self._settle = ahead.convolution("conv2", _DIM, _DIM, 3)
        self._layers = [_Layer(encoder.below(f"encoders.{n}")) for n in range(encoder.count("encoders"))]
        self._widen = encoder.convolution("up_layer.conv", _DIM, _DIM, 2 * FRAMES_PER_TOKEN + 1)
        self._enter_frames = _Entrance(encoder.below("up_embed"))
        self._frame_layers = [_Layer(encoder.below(f"up_encoders.{n}")) for n in range(encoder.count("up_encoders"))]
        self._norm = encoder.norm("after_norm", _DIM)
        self._project = load.linear("encoder_proj", _DIM, _MEL)
        for layers, positions in ((self._layers, longest), (self._frame_layers, FRAMES_PER_TOKEN * longest)):
            table = _relative_positions(positions).to(load.device)
            for layer in layers:
                layer.prepare(table)

    def __call__(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """int64 tokens [N, T], each row's first `lengths` [N] of them real, to means [N, 2 T, 80].

        What stands behind a row's length is of no meaning. A row's last `LOOKAHEAD` tokens see zeros ahead of them.
        """
        length = tokens.shape[1]
        real = torch.arange(length, device=tokens.device)[None, :] < lengths[:, None]
        x = self._embedding[tokens] * real[..., None]
        # A bias and a norm have made something of the padding, and the convolution looks ahead into it.
        x = self._enter(x) * real[..., None]
        x = x + self._settle(F.leaky_relu(self._look(x, ahead=LOOKAHEAD)))
        bias = key_bias(lengths, length, x.dtype)
        for layer in self._layers:
            x = layer(x, bias)
        x = self._widen(x.repeat_interleave(FRAMES_PER_TOKEN, dim=1))
        x = self._enter_frames(x)
        bias = key_bias(FRAMES_PER_TOKEN * lengths, FRAMES_PER_TOKEN * length, x.dtype)
        for layer in self._frame_layers:
            x = layer(x, bias)
        return self._project(self._norm(x))


class _Entrance:
    def __init__(self, load: Loader) -> None:
        self._linear = load.linear("out.0", _DIM, _DIM)
        self._norm = load.norm("out.1", _DIM)

    def __call__(self, x: Tensor) -> Tensor:
        return self._norm(self._linear(x)) * math.sqrt(_DIM)


def _relative_positions(length: int) -> Tensor:
    """Sinusoids float32 [2 length - 1, dim] of the distances length - 1 down to 1 - length."""
    distances = torch.arange(length - 1, -length, -1, dtype=torch.float32)[:, None]
    rates = torch.exp(torch.arange(0, _DIM, 2, dtype=torch.float32) * -(math.log(10_000.0) / _DIM))
    angles = distances * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def _shifted(x: Tensor) -> Tensor:
    """[..., T, 2 T - 1] by distance to [..., T, T] by key: row i begins i places further to the left. A view."""
    *outer, length, distances = x.shape
    x = x.contiguous()
    strides = (*x.stride()[:-2], distances - 1, 1)
    return x.as_strided((*outer, length, length), strides, x.storage_offset() + length - 1)
