"""Matrix products with weights laid out for the device, and a check that their rows do not know of each other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

_PACKING_ROWS = 64
"""The batch oneDNN is told to lay weights out for. With 64 its float32 products are fast from 2 rows to 128 and give
each row the same bits in all of them; with less, 16 to 48 rows are five times slower (docs/lab-notes.md)."""


_MANY_ROWS = 1200
"""The same for frames of sound, which come by the hundred: 12 s with guidance."""

Activation = Literal["none", "gelu", "swish"]
"""What may follow a product: the exact GELU (with the error function), or x times its sigmoid."""


class Linear(Protocol):
    """x [..., in] in the weight's precision to [..., out]."""

    def __call__(self, x: Tensor) -> Tensor: ...

    @property
    def nbytes(self) -> int:
        """Bytes of weights read by one product."""
        ...

    @property
    def in_features(self) -> int: ...


class DenseLinear:
    """The weight as it is, multiplied by torch."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None, activation: Activation = "none") -> None:
        self._weight = weight
        self._bias = bias
        self._activation = activation
        self.nbytes = weight.nbytes
        self.in_features = weight.shape[1]

    def __call__(self, x: Tensor) -> Tensor:
        product = F.linear(x, self._weight, self._bias)
        if self._activation == "none":
            return product
        return F.gelu(product) if self._activation == "gelu" else F.silu(product)


class PackedLinear:
    """The weight in oneDNN's own blocked layout: no reordering per product, three times faster at two rows."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        activation: Activation = "none",
        *,
        rows: int = _PACKING_ROWS,
    ) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, rows)  # noqa: SLF001 - its only way in
        self._bias = bias
        self._activation = activation
        self.nbytes = weight.nbytes
        self.in_features = weight.shape[1]

    def __call__(self, x: Tensor) -> Tensor:
        after = "none" if self._activation == "gelu" else ""  # which GELU: neither of the approximations
        product: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001 - same
            x, self._weight, self._bias, self._activation, [], after
        )
        return product


class CudaLogits:
    """A product of bfloat16 factors on CUDA, added up and returned in float32."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight.t()
        self.nbytes = weight.nbytes
        self.in_features = weight.shape[1]

    def __call__(self, x: Tensor) -> Tensor:
        return torch.mm(x, self._weight, out_dtype=torch.float32)


class UpcastLogits:
    """A product in float32, whatever precision x has."""

    def __init__(self, product: Linear) -> None:
        self._product = product
        self.nbytes = product.nbytes
        self.in_features = product.in_features

    def __call__(self, x: Tensor) -> Tensor:
        return self._product(x.float())


class RoundedLinear:
    """A float32 product of rounded factors, itself rounded: a precision that the processor does not compute in."""

    def __init__(self, product: Linear, dtype: torch.dtype) -> None:
        self.unrounded, self._dtype = product, dtype
        self.nbytes = product.nbytes
        self.in_features = product.in_features

    def __call__(self, x: Tensor) -> Tensor:
        return self.unrounded(x.float()).to(self._dtype)


def linear(weight: Tensor, *, device: torch.device, dtype: torch.dtype) -> Linear:
    """The fastest product that this device has for a float32 weight of shape [out, in], rounded to `dtype`."""
    weight = weight.to(device=device, dtype=dtype).contiguous()
    if device.type == "cpu" and _can_pack():
        return PackedLinear(weight) if _computes_in(dtype) else RoundedLinear(PackedLinear(weight.float()), dtype)
    return DenseLinear(weight)


def affine(
    weight: Tensor, bias: Tensor | None, *, device: torch.device, dtype: torch.dtype, activation: Activation = "none"
) -> Linear:
    """As `linear`, with a bias and an activation, for products of hundreds of rows."""
    weight = weight.to(device=device, dtype=dtype).contiguous()
    bias = None if bias is None else bias.to(device=device, dtype=dtype)
    if device.type == "cpu" and _can_pack():
        if _computes_in(dtype):
            return PackedLinear(weight, bias, activation, rows=_MANY_ROWS)
        bias = None if bias is None else bias.float()
        return RoundedLinear(PackedLinear(weight.float(), bias, activation, rows=_MANY_ROWS), dtype)
    return DenseLinear(weight, bias, activation)


def logits_linear(weight: Tensor, *, device: torch.device, dtype: torch.dtype) -> Linear:
    """The product from hidden states in `dtype` to float32 logits."""
    if device.type == "cuda" and dtype is not torch.float32:
        return CudaLogits(weight.to(device=device, dtype=dtype).contiguous())
    return UpcastLogits(linear(weight, device=device, dtype=torch.float32))


def agreeing_sizes(products: Iterable[Linear], sizes: Iterable[int], dtype: torch.dtype) -> list[int]:
    """Those of the batch sizes in which a row comes out with the same bits as in the largest.

    Which kernel a library picks, and so in which order it adds, can depend on the number of rows. A row's result may
    be compared between batches of the sizes returned; the largest is always among them. For the CPU.
    """
    agreeing = sorted(set(sizes))
    generator = torch.Generator().manual_seed(0)
    for product in products:
        for _ in range(_PROBES):
            x = torch.randn(agreeing[-1], product.in_features, generator=generator).to(dtype)
            if isinstance(product, RoundedLinear):  # rounding would hide, of these numbers, what others show
                product, x = product.unrounded, x.float()  # noqa: PLW2901 - the same product
            whole = product(x)
            agreeing = [size for size in agreeing if _agrees(product, x, whole, size)]
    return agreeing


_PROBES = 3
"""Batches that are tried. Sums of another order, rounded to bfloat16, differ in 1 of 10,000 elements only, as was seen
on processors with AMX: a few rows of 3,072 elements may all be alike by chance."""


def _agrees(product: Linear, x: Tensor, whole: Tensor, size: int) -> bool:
    """Whether every row comes out the same in a batch of `size`: kernels without AVX-512 treat the last ones apart."""
    starts = {*range(0, len(x) - size + 1, size), len(x) - size}
    return all(
        torch.equal(product(x[start : start + size].contiguous()), whole[start : start + size]) for start in starts
    )


def _can_pack() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


def _computes_in(dtype: torch.dtype) -> bool:
    """oneDNN takes bfloat16 on processors with AVX-512 (BW, VL and DQ) or AVX-NE-CONVERT only."""
    return dtype is not torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - same
