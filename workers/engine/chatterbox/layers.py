"""What S3Gen's stages are built of: weights read from a file, products, norms, convolutions as products, attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.engine.chatterbox.linear import Activation, Linear, affine
from workers.engine.chatterbox.weights import TensorFile

_QUERIES = 256
"""Rows of a matrix of attention weights that are computed at once on a CPU, so that they stay in its cache."""


@dataclass(frozen=True, slots=True)
class Loader:
    """Reads the parts of a checkpoint below a prefix onto a device, in a precision."""

    file: TensorFile
    prefix: str
    device: torch.device
    dtype: torch.dtype

    def below(self, name: str) -> Loader:
        return Loader(self.file, f"{self.prefix}{name}.", self.device, self.dtype)

    def tensor(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return self.file.floats(self.prefix + name, *shape).to(self.device, dtype or self.dtype)

    def raw(self, name: str, *shape: int) -> Tensor:
        """As it lies in the file: float32 on the CPU."""
        return self.file.floats(self.prefix + name, *shape)

    def width(self, name: str, axis: int = 0) -> int:
        return self.file.shape(self.prefix + name)[axis]

    def count(self, name: str) -> int:
        """How many numbered parts there are below `name`."""
        return self.file.count(f"{self.prefix}{name}.")

    def linear(
        self, name: str, inner: int, outer: int, *, bias: bool = True, activation: Activation = "none"
    ) -> Linear:
        weight = self.raw(f"{name}.weight", outer, inner)
        shift = self.raw(f"{name}.bias", outer) if bias else None
        return self.affine(weight, shift, activation)

    def affine(self, weight: Tensor, bias: Tensor | None, activation: Activation = "none") -> Linear:
        return affine(weight, bias, device=self.device, dtype=self.dtype, activation=activation)

    def norm(self, name: str, width: int, eps: float = 1e-5) -> LayerNorm:
        return LayerNorm(self.tensor(f"{name}.weight", width), self.tensor(f"{name}.bias", width), eps)

    def convolution(self, name: str, inner: int, outer: int, size: int) -> FrameConvolution:
        weight = self.raw(f"{name}.weight", outer, inner, size)
        # Windows of frames lie as [size, inner] in memory, torch's weights as [inner, size].
        product = self.affine(weight.transpose(1, 2).reshape(outer, size * inner), self.raw(f"{name}.bias", outer))
        return FrameConvolution(product, size)


@dataclass(frozen=True, slots=True)
class LayerNorm:
    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (x.shape[-1],), self.weight, self.bias, self.eps)


@dataclass(frozen=True, slots=True)
class FrameConvolution:
    """A convolution over frames [N, T, inner] of which `size - 1 - ahead` are past ones, as one product.

    What lies before the first frame and behind the last is zero.
    """

    product: Linear
    size: int

    def __call__(self, x: Tensor, *, ahead: int = 0) -> Tensor:
        if self.size == 1:
            return self.product(x)
        padded = F.pad(x, (0, 0, self.size - 1 - ahead, ahead))
        windows = torch.cat([padded[:, shift : shift + x.shape[1]] for shift in range(self.size)], dim=-1)
        return self.product(windows)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax attention over [N, heads, T, 64]; `bias`, added to the scaled products, broadcasts to [N, heads, T, T].

    On a CPU in bfloat16 the products go through oneDNN: torch's own fused attention multiplies with MKL there and takes
    more than twice as long (docs/lab-notes.md).
    """
    if q.device.type != "cpu" or q.dtype is not torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    rows, heads, frames, width = q.shape
    keys = k.reshape(rows * heads, frames, width).transpose(1, 2)
    values = v.reshape(rows * heads, frames, width)
    queries = (q * width**-0.5).reshape(rows * heads, frames, width)
    found = torch.empty_like(values)
    shape = (rows, heads, frames, frames)
    spread = None if bias is None else bias.expand(shape)
    for start in range(0, frames, _QUERIES):
        part = slice(start, min(start + _QUERIES, frames))
        weights = torch.bmm(queries[:, part], keys)
        if spread is not None:
            weights = (weights.view(rows, heads, -1, frames) + spread[:, :, part]).flatten(0, 1)
        found[:, part] = torch.bmm(torch.softmax(weights, dim=-1), values)
    return found.view(rows, heads, frames, width)


def key_bias(lengths: Tensor, frames: int, dtype: torch.dtype) -> Tensor:
    """[N, 1, 1, frames]: zero where a row has frames, so far below that the rest gets no attention.

    Not minus infinity, so that a row without frames gives numbers and not NaN; upstream's own bias is as low.
    """
    missing = torch.arange(frames, device=lengths.device)[None, :] >= lengths[:, None]
    return missing[:, None, None, :].to(dtype) * -1e10
