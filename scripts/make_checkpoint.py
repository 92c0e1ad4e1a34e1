#!/usr/bin/env python3
"""Write a Chatterbox checkpoint with random weights, in upstream's own layout, for work without the published one.

Run `.venv-dev/bin/python scripts/make_checkpoint.py DIR --size full|tiny`. Names and shapes are read off upstream's own
modules (chatterbox-tts 0.1.7), so upstream's loader takes a full checkpoint strictly. What such a voice says is noise.

full: upstream's sizes; `--layers N` keeps the first N layers of T3.
tiny: T3 with 2 layers of width 128, same vocabularies and positions. S3Gen keeps its widths and loses repetitions: one
block in the speech tokenizer, one encoder block before the upsampling and one after it, one middle block in the
estimator, one transformer block after each of the estimator's resnets, two of the three dilations in each of HiFT's
residual blocks. CAMPPlus, the F0 predictor and the voice encoder are whole.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import zlib
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from string import ascii_lowercase, printable
from typing import Literal, NamedTuple
from unittest.mock import patch

import librosa
import numpy as np
import torch
from chatterbox.models.s3gen import S3Gen
from chatterbox.models.t3 import T3
from chatterbox.models.t3.llama_configs import LLAMA_CONFIGS
from chatterbox.models.t3.modules.cond_enc import T3Cond
from chatterbox.models.t3.modules.perceiver import Perceiver
from chatterbox.models.voice_encoder import VoiceEncoder
from chatterbox.tts import Conditionals
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

Size = Literal["full", "tiny"]

TINY_LLAMA = LLAMA_CONFIGS["Llama_520M"] | {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}

# Mean and standard deviation where the rule of `distribution` does not serve.
DISTRIBUTIONS = {
    "cond_enc.perceiver.pre_attention_query": (0.0, 0.18),  # as upstream initialises it
    "mel2wav.f0_predictor.classifier.weight": (0.0, 8.0),  # F0 in Hz; at seed 0 most frames are voiced
    "mel2wav.f0_predictor.classifier.bias": (120.0, 1.0),
    "mel2wav.conv_post.parametrizations.weight.original0": (0.2, 0.02),  # keeps the sound below HiFT's clamp at 0.99
}

CONSTANTS = {  # buffers of upstream's state dict that nothing trains, as its S3Tokenizer computes them
    "tokenizer._mel_filters": torch.from_numpy(librosa.filters.mel(sr=16000, n_fft=400, n_mels=128)),
    "tokenizer.window": torch.hann_window(400),
}

TEXT = """
Hello there, world. The quick brown fox jumps over the lazy dog while everybody watches from the kitchen window. Would
you please read this sentence again, slowly and clearly? Nothing travels faster than light, except perhaps bad news.
It's raining outside, so don't forget your umbrella; they should have been warned, although nobody knew the morning.
"""


class Recipe(NamedTuple):
    """What decides a checkpoint's values."""

    size: Size
    layers: int | None = None  # of T3; None is all
    seed: int = 0


def upstream_t3(size: Size, layers: int | None = None) -> T3:
    """Upstream's T3 in a checkpoint's shape, on the current default device; ValueError when it has fewer layers."""
    if size == "full":
        t3 = T3()
    else:
        with patch.dict(LLAMA_CONFIGS, {"Llama_520M": TINY_LLAMA}):  # where upstream's T3 looks its sizes up
            t3 = T3()
        t3.cond_enc.perceiver = Perceiver(pre_attention_query_size=128, embedding_dim=128)
    if layers is not None:
        if not 1 <= layers <= len(t3.tfmr.layers):
            raise ValueError(f"layers must be between 1 and {len(t3.tfmr.layers)}, not {layers}")
        t3.tfmr.layers = t3.tfmr.layers[:layers]
    return t3


def upstream_s3gen(size: Size) -> S3Gen:
    """Upstream's S3Gen in a checkpoint's shape, on the current default device; tiny is pruned as the module says."""
    s3gen = S3Gen()
    if size == "full":
        return s3gen
    s3gen.tokenizer.encoder.blocks = s3gen.tokenizer.encoder.blocks[:1]
    s3gen.flow.encoder.encoders = s3gen.flow.encoder.encoders[:1]
    s3gen.flow.encoder.up_encoders = s3gen.flow.encoder.up_encoders[:1]
    estimator = s3gen.flow.decoder.estimator
    estimator.mid_blocks = estimator.mid_blocks[:1]
    for block in (*estimator.down_blocks, *estimator.mid_blocks, *estimator.up_blocks):
        block[1] = block[1][:1]
    for block in (*s3gen.mel2wav.resblocks, *s3gen.mel2wav.source_resblocks):
        for part in ("convs1", "convs2", "activations1", "activations2"):
            setattr(block, part, getattr(block, part)[:2])
    return s3gen


def distribution(name: str, shape: torch.Size) -> tuple[float, float]:
    """Mean and standard deviation of a tensor's values.

    Scales (norm weights, weight norm's gains, Snake's alpha, running variances) lie around 1 and shifts around 0,
    neither exactly, so that one left out shows. Matrices keep a unit input at about unit size: variance 1 / fan-in, or
    twice that for CAMPPlus with its many ReLUs.
    """
    leaf = name.rpartition(".")[2]
    if name in DISTRIBUTIONS:
        return DISTRIBUTIONS[name]
    if leaf in {"alpha", "original0", "running_var"} or (leaf == "weight" and len(shape) == 1):
        return 1.0, 0.1
    if leaf.startswith("bias") or leaf == "running_mean":
        return 0.0, 0.02
    return 0.0, ((2 if name.startswith("speaker_encoder.") else 1) / shape[1:].numel()) ** 0.5


def generator(name: str, seed: int) -> np.random.Generator:
    """Numbers of one tensor's own, so that pruning leaves the values of what remains as they are."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def random_state(module: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """The state dict of a module (on any device, meta too) with random values, on the CPU."""
    state = {}
    for name, tensor in module.state_dict().items():
        if name in CONSTANTS:
            state[name] = CONSTANTS[name].clone()
        elif not tensor.is_floating_point():  # batch norm's num_batches_tracked
            state[name] = torch.zeros(tensor.shape, dtype=tensor.dtype)
        else:
            mean, deviation = distribution(name, tensor.shape)
            values = generator(name, seed).standard_normal(tuple(tensor.shape), dtype=np.float32)
            state[name] = torch.from_numpy(values * deviation + mean)
    return state


def write_weights(build: Callable[[Recipe], torch.nn.Module], path: Path, recipe: Recipe) -> None:
    with torch.device("meta"):  # names and shapes alone
        module = build(recipe)
    save_file(random_state(module, recipe.seed), path)
    path.chmod(0o644)  # safetensors leaves 0600


def write_tokenizer(path: Path, _recipe: Recipe) -> None:
    """A BPE model of 704 ids: special tokens, printable ASCII, pieces of the words of `TEXT`, pairs of letters."""
    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.Whitespace()
    special, visible = ["[STOP]", "[UNK]", "[SPACE]"], list(printable[:94])
    trainer = trainers.BpeTrainer(vocab_size=703, special_tokens=special, initial_alphabet=visible, show_progress=False)
    learnt.train_from_iterator([TEXT, *map("".join, product(ascii_lowercase, repeat=2))], trainer)
    model = json.loads(learnt.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
    pieces.insert(255, "[START]")
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [tuple(merge) for merge in model["merges"]], unk_token=special[1]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([*special, "[START]"])  # matched in the text before it is split
    tokenizer.save(str(path))


def write_conditionals(path: Path, recipe: Recipe) -> None:
    """The built-in voice: a 6 s prompt for T3 (150 tokens) and a 10 s one for S3Gen (250 tokens, 500 mel frames)."""
    numbers = generator(path.name, recipe.seed)
    speaker, mel, x_vector = (numbers.standard_normal((1, *size), np.float32) for size in ((256,), (500, 80), (192,)))
    t3 = T3Cond(
        speaker_emb=torch.nn.functional.normalize(torch.from_numpy(speaker).relu()),
        cond_prompt_speech_tokens=torch.from_numpy(numbers.integers(0, 6561, (1, 150))),
        emotion_adv=torch.full((1, 1, 1), 0.5),
    )
    gen = {
        "prompt_token": torch.from_numpy(numbers.integers(0, 6561, (1, 250))),
        "prompt_token_len": torch.tensor([250]),
        "prompt_feat": torch.from_numpy(2 * mel - 5).clamp(min=np.log(1e-5)),  # log mel; the floor is upstream's
        "prompt_feat_len": None,
        "embedding": torch.from_numpy(x_vector),
    }
    Conditionals(t3, gen).save(path)


CHECKPOINTS: dict[str, dict[str, Callable[[Path, Recipe], None]]] = {
    "english": {
        "t3_cfg.safetensors": partial(write_weights, lambda recipe: upstream_t3(recipe.size, recipe.layers)),
        "s3gen.safetensors": partial(write_weights, lambda recipe: upstream_s3gen(recipe.size)),
        "ve.safetensors": partial(write_weights, lambda _: VoiceEncoder()),
        "tokenizer.json": write_tokenizer,
        "conds.pt": write_conditionals,
    },
}


def write_checkpoint(
    directory: Path, *, size: Size, layers: int | None = None, seed: int = 0, force: bool = False
) -> None:
    """Write all files of a checkpoint; `directory` appears whole or not at all.

    The same arguments give the same values; torch's global random state is left as it was. Raises FileExistsError when
    `directory` is not empty, unless `force` is set and it holds a checkpoint's files only; ValueError when T3 has fewer
    layers than `layers`.
    """
    directory = directory.resolve()
    files = CHECKPOINTS["english"]
    present = {path.name for path in directory.iterdir()} if directory.exists() else set()
    if present and not force:
        raise FileExistsError(f"{directory} is not empty")
    if not present <= set(files):
        raise FileExistsError(f"{directory} holds more than a checkpoint: {', '.join(sorted(present - set(files)))}")

    unfinished = directory.with_name(f".{directory.name}.{os.getpid()}.unfinished")
    unfinished.mkdir(parents=True)
    try:
        with torch.random.fork_rng(devices=[]):
            for name, write in files.items():
                write(unfinished / name, Recipe(size, layers, seed))
        shutil.rmtree(directory, ignore_errors=True)
        unfinished.rename(directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--size", choices=("full", "tiny"), required=True)
    parser.add_argument("--layers", type=int, help="keep the first N layers of T3", metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--force", action="store_true", help="replace the checkpoint that DIR holds")
    asked = vars(parser.parse_args())
    try:
        write_checkpoint(**asked)
    except (OSError, ValueError) as problem:
        raise SystemExit(f"error: {problem}") from None
    for path in sorted(asked["directory"].iterdir()):
        print(f"{path.name:20} {path.stat().st_size / 1e6:8.1f} MB")


if __name__ == "__main__":
    main()
