"""The token transformer: its backbone's forward pass over rows that stand anywhere in the KV cache."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from fleet.startup_errors import ModelInvalid
from workers.engine.chatterbox.config import HEAD_DIM, RopeScaling, T3Config
from workers.engine.chatterbox.kernels import Kernels, Rows
from workers.engine.chatterbox.kv_cache import KVSlots
from workers.engine.chatterbox.linear import Linear, agreeing_sizes, linear, logits_linear
from workers.engine.chatterbox.weights import TensorFile

_LAYER = "tfmr.layers.%d."


def read_config(file: TensorFile) -> T3Config:
    """The sizes of an English T3, from the shapes of its tensors. Raises `ModelInvalid` for another kind of file."""
    layers = file.count(_LAYER.partition("%")[0])  # one with a tensor or a number missing counts, and fails to load
    if layers == 0:
        raise ModelInvalid(f"{file.path} holds no layer of the Llama family, {_LAYER % 0}self_attn.q_proj.weight")
    text_vocabulary, dim = _shape(file, "text_emb.weight")
    if dim % HEAD_DIM:
        raise ModelInvalid(f"{file.path}: text_emb.weight is {dim} wide, not a multiple of {HEAD_DIM}")
    config = T3Config(
        layers=layers,
        dim=dim,
        heads=dim // HEAD_DIM,
        ffn_dim=_shape(file, (_LAYER % 0) + "mlp.gate_proj.weight")[0],
        text_vocabulary=text_vocabulary,
        speech_vocabulary=_shape(file, "speech_head.weight")[0],
        text_positions=_shape(file, "text_pos_emb.emb.weight")[0],
        speech_positions=_shape(file, "speech_pos_emb.emb.weight")[0],
        prompt_queries=_shape(file, "cond_enc.perceiver.pre_attention_query", dimensions=3)[1],
        speaker_dim=_shape(file, "cond_enc.spkr_enc.weight")[1],
    )
    for name, size, token in (
        ("text_emb.weight", config.text_vocabulary, config.start_text),
        ("speech_head.weight", config.speech_vocabulary, config.stop_speech),
    ):
        if token >= size:
            raise ModelInvalid(f"{file.path}: {name} has {size} rows, none for the token {token}")
    return config


def _shape(file: TensorFile, name: str, *, dimensions: int = 2) -> tuple[int, ...]:
    shape = file.shape(name)
    if len(shape) != dimensions or not all(shape):
        raise ModelInvalid(f"{file.path}: {name} has the shape {list(shape)}, not {dimensions} dimensions")
    return shape


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer; q, k and v are one product, and so are gate and up."""

    attention_norm: Tensor
    qkv: Linear
    output: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear

    @property
    def products(self) -> tuple[Linear, ...]:
        return (self.qkv, self.output, self.gate_up, self.down)


class T3:
    """The Llama-family backbone and the speech head. Norms, the residual stream and logits are float32.

    It holds weights alone; keys and values are in the cache it is given, of slots of `positions`.

    Raises `ModelInvalid` when the checkpoint lacks a tensor or holds it in another shape.
    """

    def __init__(
        self,
        file: TensorFile,
        config: T3Config,
        *,
        positions: int,
        kernels: Kernels,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        dim, ffn = config.dim, config.ffn_dim

        def norm(name: str) -> Tensor:
            return file.floats(name, dim).to(device)

        def product(*weights: Tensor) -> Linear:
            return linear(torch.cat(weights), device=device, dtype=dtype)

        def layer(prefix: str) -> _Layer:
            return _Layer(
                attention_norm=norm(prefix + "input_layernorm.weight"),
                qkv=product(*(file.floats(f"{prefix}self_attn.{p}_proj.weight", dim, dim) for p in "qkv")),
                output=product(file.floats(prefix + "self_attn.o_proj.weight", dim, dim)),
                mlp_norm=norm(prefix + "post_attention_layernorm.weight"),
                gate_up=product(*(file.floats(f"{prefix}mlp.{p}_proj.weight", ffn, dim) for p in ("gate", "up"))),
                down=product(file.floats(prefix + "mlp.down_proj.weight", dim, ffn)),
            )

        self._config = config
        self._kernels = kernels
        self._layers = [layer(_LAYER % number) for number in range(config.layers)]
        self._norm = norm("tfmr.norm.weight")
        self._dtype = dtype
        self._head = logits_linear(
            file.floats("speech_head.weight", config.speech_vocabulary, dim), device=device, dtype=dtype
        )
        self._cosines, self._sines = rotations(config.rope, config.head_dim, positions, device)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that one step reads, whatever the number of rows."""
        layers = (product for layer in self._layers for product in layer.products)
        return sum(product.nbytes for product in (*layers, self._head))

    def agreeing_rows(self, sizes: Iterable[int]) -> list[int]:
        """Those numbers of rows of a step on a CPU in which a row's result is the same to the last bit."""
        return agreeing_sizes((*self._layers[0].products, self._head), sizes, self._dtype)

    def prefill(self, cache: KVSlots, embeddings: Tensor, slots: Tensor, start: int) -> None:
        """Compute the keys and values of a run of positions, the same for each row.

        `embeddings` float32 [rows, chunk, dim]; `slots` int64 [rows]; the run begins at position `start`.
        """
        rows, chunk, _ = embeddings.shape
        positions = torch.arange(start, start + chunk, device=embeddings.device).repeat(rows)
        self._forward(
            cache,
            embeddings.flatten(0, 1).clone(),
            Rows(
                slots=slots.repeat_interleave(chunk),
                positions=positions,
                lengths=positions + 1,
                cosines=self._cosines,
                sines=self._sines,
                chunk=chunk,
                start=start,
            ),
        )

    def step(self, cache: KVSlots, embeddings: Tensor, slots: Tensor, positions: Tensor, live: Tensor) -> Tensor:
        """One position for each of N rows: float32 [N, dim] to logits float32 [N, vocabulary].

        `slots` and `positions` are int64 [N]; rows that are not `live` (bool [N]) give finite logits of no meaning.
        """
        rows = Rows(
            slots=slots,
            positions=positions,
            lengths=(positions + 1) * live,
            cosines=self._cosines,
            sines=self._sines,
        )
        return self._head(self._forward(cache, embeddings, rows))

    def _forward(self, cache: KVSlots, residual: Tensor, rows: Rows) -> Tensor:
        """The backbone over float32 [N, dim], which it overwrites; the normed result in the model's precision."""
        kernels, eps = self._kernels, self._config.norm_eps
        update: Tensor | None = None
        for number, layer in enumerate(self._layers):
            x = kernels.add_rms_norm(residual, update, layer.attention_norm, eps)
            x = kernels.attend(layer.qkv(x), *cache.layer(number), rows)
            x = kernels.add_rms_norm(residual, layer.output(x), layer.mlp_norm, eps)
            update = layer.down(kernels.silu_and_multiply(layer.gate_up(x)))
        return kernels.add_rms_norm(residual, update, self._norm, eps)


def rotations(rope: RopeScaling, head_dim: int, positions: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines float32 [positions, head_dim / 2] of the rotary embedding.

    Frequencies as Llama 3 scales them: those with a wavelength above original / low_frequency_factor are divided by
    `factor`, those below original / high_frequency_factor are kept, and between them the two are blended
    (`_compute_llama3_parameters` of transformers 5).
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    frequencies = 1.0 / rope.theta**exponents
    wavelengths = 2 * math.pi / frequencies
    low, high = rope.low_frequency_factor, rope.high_frequency_factor
    share = ((rope.original_positions / wavelengths - low) / (high - low)).clamp(0, 1)
    scaled = (1 - share) * frequencies / rope.factor + share * frequencies
    angles = torch.arange(positions).float()[:, None] * scaled[None]
    return angles.cos().to(device), angles.sin().to(device)
