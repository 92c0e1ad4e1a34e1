"""The random checkpoint, read by upstream's own classes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from chatterbox.models.t3 import T3
from chatterbox.models.tokenizers import EnTokenizer
from chatterbox.models.voice_encoder import VoiceEncoder
from chatterbox.tts import Conditionals
from safetensors.torch import load_file

from tests.running import ROOT

WEIGHTS = ("t3_cfg.safetensors", "s3gen.safetensors", "ve.safetensors")


def load_script() -> Any:
    specification = importlib.util.spec_from_file_location("make_checkpoint", ROOT / "scripts/make_checkpoint.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


make_checkpoint = load_script()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoint") / "tiny"
    make_checkpoint.write_checkpoint(directory, size="tiny")
    return directory


@pytest.fixture(scope="module")
def s3gen(tiny: Path) -> Any:
    """Upstream's S3Gen, pruned as the tiny checkpoint is."""
    s3gen = make_checkpoint.upstream_s3gen("tiny")
    s3gen.load_state_dict(load_file(tiny / "s3gen.safetensors"), strict=True)
    return s3gen.eval()


def test_the_same_seed_gives_the_same_values(tiny: Path, tmp_path: Path) -> None:
    """Two runs with one seed write equal files, and leave torch's own random numbers alone."""
    before = torch.get_rng_state()
    make_checkpoint.write_checkpoint(tmp_path / "again", size="tiny")
    assert torch.equal(torch.get_rng_state(), before)
    assert {path.name for path in tiny.iterdir()} == {*WEIGHTS, "tokenizer.json", "conds.pt"}
    assert (tmp_path / "again/tokenizer.json").read_bytes() == (tiny / "tokenizer.json").read_bytes()
    for name in WEIGHTS:
        first, second = load_file(tiny / name), load_file(tmp_path / "again" / name)
        assert first.keys() == second.keys()
        assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())
    one, other = Conditionals.load(tiny / "conds.pt"), Conditionals.load(tmp_path / "again/conds.pt")
    assert torch.equal(one.t3.speaker_emb, other.t3.speaker_emb)
    assert torch.equal(one.gen["prompt_feat"], other.gen["prompt_feat"])


def test_no_scale_is_one_and_no_shift_is_zero(tiny: Path) -> None:
    """A norm's weight or a bias left out would change the result; all values are finite and variances positive."""
    for name in WEIGHTS:
        for key, tensor in load_file(tiny / name).items():
            if not tensor.is_floating_point():
                continue
            assert tensor.isfinite().all(), key
            if key.endswith("running_var"):
                assert (tensor > 0).all(), key
            if tensor.ndim == 1 and key != "tokenizer.window":
                assert ((tensor != 0) & (tensor != 1)).float().mean() > 0.99, key


def test_a_pruned_full_t3_loads_strictly(tmp_path: Path) -> None:
    """Upstream's T3 with its first layer alone takes the file of a full checkpoint with one layer."""
    write = make_checkpoint.CHECKPOINTS["english"]["t3_cfg.safetensors"]
    write(tmp_path / "t3_cfg.safetensors", make_checkpoint.Recipe("full", layers=1))
    with torch.device("meta"):
        t3 = T3()
    t3.tfmr.layers = t3.tfmr.layers[:1]
    t3.load_state_dict(load_file(tmp_path / "t3_cfg.safetensors"), strict=True, assign=True)
    assert t3.tfmr.layers[0].mlp.gate_proj.weight.shape == (4096, 1024)


def test_pruning_leaves_the_other_values(tiny: Path, tmp_path: Path) -> None:
    """A layer's values do not depend on how many layers follow it; more layers than there are is an error."""
    write = make_checkpoint.CHECKPOINTS["english"]["t3_cfg.safetensors"]
    write(tmp_path / "t3.safetensors", make_checkpoint.Recipe("tiny", layers=1))
    pruned, whole = load_file(tmp_path / "t3.safetensors"), load_file(tiny / "t3_cfg.safetensors")
    assert {key for key in whole if not key.startswith("tfmr.layers.1.")} == set(pruned)
    assert all(torch.equal(tensor, whole[key]) for key, tensor in pruned.items())
    with pytest.raises(ValueError, match="between 1 and 2"):
        make_checkpoint.write_checkpoint(tmp_path / "checkpoint", size="tiny", layers=3)
    assert [path.name for path in tmp_path.iterdir()] == ["t3.safetensors"]


def test_upstreams_tokenizer_loads(tiny: Path) -> None:
    """The vocabulary keeps upstream's special ids, joins letters, and answers unknown characters with [UNK]."""
    tokenizer = EnTokenizer(str(tiny / "tokenizer.json"))
    vocabulary = tokenizer.tokenizer.get_vocab()
    assert sorted(vocabulary.values()) == list(range(704))
    assert [vocabulary[token] for token in ("[STOP]", "[UNK]", "[SPACE]", "[START]")] == [0, 1, 2, 255]
    text = "Hello there, world."
    ids = tokenizer.encode(text)
    assert ids.count(2) == 2
    assert len(ids) < len(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode("ж") == [1]
    printable = "".join(map(chr, range(ord(" "), ord("~") + 1)))
    assert 1 not in tokenizer.encode(printable)


def test_upstreams_conditionals_load(tiny: Path) -> None:
    """The built-in voice has upstream's shapes and a speaker embedding such as the voice encoder's."""
    conditionals = Conditionals.load(tiny / "conds.pt")
    speaker = conditionals.t3.speaker_emb
    assert speaker.shape == (1, 256)
    assert (speaker >= 0).all()
    assert speaker.norm().item() == pytest.approx(1)
    tokens = conditionals.t3.cond_prompt_speech_tokens
    assert (tokens.shape, tokens.dtype) == ((1, 150), torch.int64)
    assert tokens.max() < 6561
    assert conditionals.t3.emotion_adv.flatten().tolist() == [0.5]
    assert conditionals.t3.clap_emb is conditionals.t3.cond_prompt_speech_emb is None
    gen = conditionals.gen
    assert gen["prompt_token"].shape == (1, 250)
    assert gen["prompt_token_len"].tolist() == [250]
    assert gen["prompt_feat"].shape == (1, 500, 80)
    assert gen["prompt_feat_len"] is None
    assert gen["embedding"].shape == (1, 192)


def test_upstreams_t3_speaks_from_a_tiny_checkpoint(tiny: Path) -> None:
    """Text tokens become speech tokens."""
    t3 = make_checkpoint.upstream_t3("tiny")
    t3.load_state_dict(load_file(tiny / "t3_cfg.safetensors"), strict=True)
    text = torch.tensor([[255, *EnTokenizer(str(tiny / "tokenizer.json")).encode("Hello."), 0]]).repeat(2, 1)
    voice = Conditionals.load(tiny / "conds.pt").t3
    with torch.inference_mode():
        tokens = t3.eval().inference(t3_cond=voice, text_tokens=text, max_new_tokens=5, cfg_weight=0.5)
    assert tokens.shape == (1, 5)
    assert tokens.max() < 8194


def test_upstreams_s3gen_speaks_from_a_tiny_checkpoint(s3gen: Any, tiny: Path) -> None:
    """Ten speech tokens become 0.4 s of sound that nowhere meets HiFT's clamp, over voiced and unvoiced frames."""
    prompt = Conditionals.load(tiny / "conds.pt").gen
    prompt |= {
        "prompt_token": prompt["prompt_token"][:, :10],
        "prompt_token_len": torch.tensor([10]),
        "prompt_feat": prompt["prompt_feat"][:, :20],
    }
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        mel = s3gen.flow_inference(torch.arange(0, 6000, 120)[None], ref_dict=prompt, finalize=True)
        f0 = s3gen.mel2wav.f0_predictor(mel)
        sound, _ = s3gen.hift_inference(mel)
    assert mel.shape == (1, 80, 100)
    assert sound.shape == (1, 48000)
    assert 0.01 < sound.abs().max() < 0.99
    assert 0.5 < (f0 > 10).float().mean() < 1


def test_upstreams_encoders_read_a_voice(s3gen: Any, tiny: Path) -> None:
    """Speech tokens, x-vector and speaker embedding come out of two sounds, and differ."""
    voice_encoder = VoiceEncoder()
    voice_encoder.load_state_dict(load_file(tiny / "ve.safetensors"), strict=True)
    seconds = torch.arange(32000) / 16000
    sounds = [torch.sin(2 * torch.pi * frequency * seconds) * seconds for frequency in (200, 1500)]
    tokens, x_vectors, speakers = [], [], []
    for sound in sounds:
        tokens.append(s3gen.tokenizer(sound[None])[0])
        x_vectors.append(s3gen.speaker_encoder.inference(sound[None]))
        speakers.append(torch.from_numpy(voice_encoder.embeds_from_wavs([sound.numpy()], sample_rate=16000)))
    assert [ids.shape for ids in tokens] == [(1, 50), (1, 50)]
    assert not torch.equal(*tokens)
    for one, other in (x_vectors, speakers):
        assert torch.cosine_similarity(one, other) < 0.98


def test_a_non_empty_directory_is_left_untouched(tmp_path: Path) -> None:
    """What lies in the way stays, by force too when it is no checkpoint."""
    (tmp_path / "notes.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(FileExistsError):
            make_checkpoint.write_checkpoint(tmp_path, size="tiny", force=force)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("notes.txt", "mine")]


def test_force_replaces_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that holds a checkpoint's files only is replaced by force."""
    files = make_checkpoint.CHECKPOINTS["english"]
    monkeypatch.setitem(make_checkpoint.CHECKPOINTS, "english", {"conds.pt": files["conds.pt"]})
    (tmp_path / "conds.pt").write_text("old")
    make_checkpoint.write_checkpoint(tmp_path, size="tiny", force=True)
    assert Conditionals.load(tmp_path / "conds.pt").gen["embedding"].shape == (1, 192)
