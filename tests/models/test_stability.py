"""Stability AI's own layout: converted once, it gives the sound of diffusers' layout; unknown blocks are named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import checkpoints
from tests.engine.families.renders import AUDIBLE_PEAK, load, render, wave_order
from timbred.errors import MissingWeights, ModelError, TimbredError
from timbred.models.checkpoint import INDEX_NAME
from timbred.models.install import install
from timbred.models.stability import CONFIG_NAME, is_stability

Tensors = dict[str, torch.Tensor]
Config = dict[str, Any]
RATE = checkpoints.WAVE_RATE


def weights(folder: Path, part: str) -> Tensors:
    return load_file(folder / part / "diffusion_pytorch_model.safetensors")


def settings(folder: Path, part: str) -> Config:
    return json.loads((folder / part / "config.json").read_text())


def oobleck_weights(folder: Path, depth: int) -> Tensors:
    """Return Oobleck's tensors by their names in the published code: numbered layers of sequences."""
    units = {"snake1": 0, "conv1": 1, "snake2": 2, "conv2": 3}
    made: Tensors = {}
    for name, tensor in weights(folder, "vae").items():
        side, first, *rest = name.split(".")
        if first == "block":
            number, inner, *rest = rest
            if inner.startswith("res_unit"):
                place = int(inner.removeprefix("res_unit")) + (-1 if side == "encoder" else 1)
                rest = ["layers", str(units[rest[0]]), *rest[1:]]
            else:
                place = {"encoder": {"snake1": 3, "conv1": 4}, "decoder": {"snake1": 0, "conv_t1": 1}}[side][inner]
            path = [side, "layers", str(int(number) + 1), "layers", str(place), *rest]
        else:
            path = [side, "layers", str({"conv1": 0, "snake1": depth + 1, "conv2": depth + 2}[first]), *rest]
        made["pretransform.model." + ".".join(path)] = tensor.flatten() if "snake" in name else tensor
    return made


def stable_audio_network(folder: Path) -> Tensors:
    """Return the tensors of Stable Audio's network by their names in the published code."""
    given = weights(folder, "transformer")
    outer = {
        "time_proj.weight": "timestep_features.weight",
        "proj_in.weight": "transformer.project_in.weight",
        "proj_out.weight": "transformer.project_out.weight",
    }
    stems = {
        "timestep_proj": "to_timestep_embed",
        "global_proj": "to_global_embed",
        "cross_attention_proj": "to_cond_embed",
    }
    norms = {"norm1": "pre_norm", "norm2": "cross_attend_norm", "norm3": "ff_norm"}
    made: Tensors = {"transformer.rotary_pos_emb.inv_freq": torch.ones(2)}
    for name in given:
        stem, _, rest = name.partition(".")
        if stem == "transformer_blocks":
            number, part, rest = rest.split(".", 2)
            layer = f"transformer.layers.{number}."
            if part in norms:
                made[f"{layer}{norms[part]}.{'gamma' if rest == 'weight' else 'beta'}"] = given[name]
            elif part == "ff":
                made[layer + "ff.ff." + rest.removeprefix("net.")] = given[name]
            elif rest == "to_out.0.weight":
                made[layer + {"attn1": "self_attn", "attn2": "cross_attn"}[part] + ".to_out.weight"] = given[name]
            elif part == "attn1" and rest == "to_q.weight":
                made[layer + "self_attn.to_qkv.weight"] = torch.cat(
                    [given[name.replace("to_q", f"to_{one}")] for one in "qkv"]
                )
            elif part == "attn2" and rest == "to_k.weight":
                made[layer + "cross_attn.to_kv.weight"] = torch.cat(
                    [given[name.replace("to_k", f"to_{one}")] for one in "kv"]
                )
            elif part == "attn2" and rest == "to_q.weight":
                made[layer + "cross_attn.to_q.weight"] = given[name]
        else:
            made[outer.get(name) or f"{stems.get(stem, stem)}.{rest}"] = given[name]
    made["timestep_features.weight"] = made["timestep_features.weight"][:, None]
    return {"model.model." + name: tensor for name, tensor in made.items()}


def open_model(source: Path, folder: Path) -> Path:
    """Write a Stable Audio checkpoint in Stability AI's layout."""
    network, vae = settings(source, "transformer"), settings(source, "vae")
    projection = settings(source, "projection_model")
    conditioners = {
        "conditioner.conditioners."
        + name.replace("start_number_conditioner", "seconds_start")
        .replace("end_number_conditioner", "seconds_total")
        .replace("time_positional_embedding", "embedder.embedding")
        .replace("text_projection", "prompt.proj_out"): tensor
        for name, tensor in weights(source, "projection_model").items()
    }
    number = {"min_val": projection["min_value"], "max_val": projection["max_value"]}
    sides = {"c_mults": vae["channel_multiples"], "strides": vae["downsampling_ratios"], "use_snake": True}
    width = network["num_attention_heads"] * network["attention_head_dim"]
    hop = int(np.prod(vae["downsampling_ratios"]))
    config: Config = {
        "model_type": "diffusion_cond",
        "sample_size": network["sample_size"] * hop,
        "sample_rate": RATE,
        "audio_channels": 2,
        "model": {
            "pretransform": {
                "type": "autoencoder",
                "iterate_batch": True,
                "config": {
                    "encoder": {
                        "type": "oobleck",
                        "config": {
                            **sides,
                            "in_channels": 2,
                            "channels": vae["encoder_hidden_size"],
                            "latent_dim": vae["encoder_hidden_size"],
                        },
                    },
                    "decoder": {
                        "type": "oobleck",
                        "config": {
                            **sides,
                            "out_channels": 2,
                            "channels": vae["decoder_channels"],
                            "latent_dim": vae["decoder_input_channels"],
                        },
                    },
                    "bottleneck": {"type": "vae"},
                    "latent_dim": vae["decoder_input_channels"],
                    "downsampling_ratio": hop,
                    "io_channels": 2,
                },
            },
            "conditioning": {
                "configs": [
                    {"id": "prompt", "type": "t5", "config": {"t5_model_name": "t5-tiny", "max_length": 40}},
                    {"id": "seconds_start", "type": "number", "config": number},
                    {"id": "seconds_total", "type": "number", "config": number},
                ],
                "cond_dim": projection["conditioning_dim"],
            },
            "diffusion": {
                "cross_attention_cond_ids": ["prompt", "seconds_start", "seconds_total"],
                "global_cond_ids": ["seconds_start", "seconds_total"],
                "type": "dit",
                "config": {
                    "io_channels": network["in_channels"],
                    "embed_dim": width,
                    "depth": network["num_layers"],
                    "num_heads": network["num_attention_heads"],
                    "cond_token_dim": network["cross_attention_dim"],
                    "global_cond_dim": network["global_states_input_dim"],
                    "project_cond_tokens": False,
                    "transformer_type": "continuous_transformer",
                },
            },
            "io_channels": network["in_channels"],
        },
    }
    tensors = {
        **stable_audio_network(source),
        **oobleck_weights(source, len(vae["downsampling_ratios"])),
        **conditioners,
    }
    return write(source, folder, config, tensors, "t5-tiny")


def write(source: Path, folder: Path, config: Config, tensors: Tensors, encoder: str) -> Path:
    (folder / encoder).mkdir(parents=True)
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(source / part, folder / encoder, dirs_exist_ok=True)
    (folder / CONFIG_NAME).write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def published_attention(tensor: torch.Tensor) -> torch.Tensor:
    """Return [q1 | q2 | k1 | k2 | v] as [q | k | v | q2 | k2]."""
    query, query_2, key, key_2, value = tensor.chunk(5)
    return torch.cat([query, key, value, query_2, key_2])


def same_weights(folder: Path, depth: int) -> Tensors:
    """Return SAME's tensors by their names in the published code."""
    made: Tensors = {"bottleneck.noise_scaling_factor": torch.ones(1)}
    names = (
        ("norm_attn.", "pre_norm."), ("norm_ff.", "ff_norm."), (".attn.", ".self_attn."),
        ("ff.proj_in.", "ff.ff.0.proj."), ("ff.proj_out.", "ff.ff.2."),
        ("encoder.proj.", f"encoder.layers.{depth + 1}."), ("decoder.proj.", "decoder.layers.1."),
        ("bottleneck.scale", "bottleneck.scaling_factor"),
    )  # fmt: skip
    for name, tensor in weights(folder, "vae").items():
        published = name
        for number in range(depth):
            published = published.replace(f"encoder.blocks.{number}.", f"encoder.layers.{number}.")
            published = published.replace(f"decoder.blocks.{number}.", f"decoder.layers.{number + 3}.")
        for own, other in names:
            published = published.replace(own, other)
        made[published] = published_attention(tensor) if name.endswith("to_qkv.weight") else tensor
    return {"pretransform.model." + name: tensor for name, tensor in made.items()}


def stable_audio_3_network(folder: Path) -> Tensors:
    """Return the tensors of Stable Audio 3's network by their names in the published code."""
    inner = ("memory_tokens", "rotary_pos_emb.", "global_cond_embedder.")
    made: Tensors = {}
    for name, tensor in weights(folder, "transformer").items():
        if name == "prompt_padding_embedding":
            made["conditioner.conditioners.prompt.padding_embedding"] = tensor
            continue
        published = name.replace("transformer_blocks.", "transformer.layers.").replace("ff.proj_in.", "ff.ff.0.proj.")
        published = published.replace("ff.proj_out.", "ff.ff.2.").replace(
            "proj_in.weight", "transformer.project_in.weight"
        )
        published = published.replace("proj_out.weight", "transformer.project_out.weight")
        published = f"transformer.{published}" if published.startswith(inner) else published
        made["model.model." + published] = published_attention(tensor) if "self_attn.to_qkv" in name else tensor
    return made


def model_3(source: Path, folder: Path) -> Path:
    """Write a Stable Audio 3 checkpoint in Stability AI's layout."""
    network, vae, embedder = (settings(source, part) for part in ("transformer", "vae", "duration_embedder"))
    scheduler = json.loads((source / "scheduler" / "scheduler_config.json").read_text())
    embedding = weights(source, "duration_embedder")
    patched = 2 * vae["patch_size"]
    side = {
        "channels": vae["encoder_channels"], "c_mults": vae["encoder_c_mults"], "strides": vae["encoder_strides"],
        "latent_dim": vae["latent_dim"], "transformer_depths": vae["encoder_transformer_depths"], "differential": True,
        "dyt": True, "dim_heads": vae["dim_heads"], "variable_stride": True,
        "sliding_window": [vae["sliding_window"]] * 2,
    }  # fmt: skip
    config: Config = {
        "model_type": "diffusion_cond_inpaint",
        "sample_size": 1 << 16,
        "sample_rate": RATE,
        "audio_channels": 2,
        "model": {
            "pretransform": {
                "type": "autoencoder",
                "config": {
                    "pretransform": {"type": "patched", "config": {"patch_size": vae["patch_size"], "channels": 2}},
                    "encoder": {"type": "same", "config": {**side, "in_channels": patched}},
                    "decoder": {"type": "same", "config": {**side, "out_channels": patched, "sinusoidal_blocks": [0]}},
                    "latent_dim": vae["latent_dim"],
                    "downsampling_ratio": vae["patch_size"] * int(np.prod(vae["encoder_strides"])),
                    "io_channels": 2,
                },
            },
            "conditioning": {
                "configs": [
                    {"id": "prompt", "type": "t5gemma", "config": {"max_length": 40, "subfolder": "t5gemma-tiny"}},
                    {
                        "id": "seconds_total",
                        "type": "number",
                        "config": {"min_val": 0.0, "max_val": embedder["max_val"]},
                    },
                ],
                "cond_dim": network["cond_token_dim"],
            },
            "diffusion": {
                "type": "dit",
                "diffusion_objective": "rf_denoiser" if scheduler["stochastic_sampling"] else "rectified_flow",
                "config": {
                    **{
                        key: network[key]
                        for key in ("io_channels", "embed_dim", "depth", "num_heads", "cond_token_dim")
                    },
                    **{key: network[key] for key in ("global_cond_dim", "local_add_cond_dim", "num_memory_tokens")},
                    "global_cond_type": "adaLN",
                    "timestep_features_type": "expo",
                    "attn_kwargs": {"qk_norm": "rms", "differential": True},
                    "norm_type": "rms_norm",
                    "ff_kwargs": {"mult": network["ff_mult"]},
                },
            },
            "io_channels": network["io_channels"],
        },
    }
    base = "conditioner.conditioners.seconds_total.embedder.embedding.1."
    tensors = {
        **stable_audio_3_network(source),
        **same_weights(source, len(vae["encoder_strides"])),
        base + "weight": embedding["linear.weight"],
        base + "bias": embedding["linear.bias"],
    }
    return write(source, folder, config, tensors, "t5gemma-tiny")


LAYOUTS: dict[str, Callable[[Path, Path], Path]] = {"stable_audio": open_model, "stable_audio_3": model_3}


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """Return a checkpoint in diffusers' layout, and the same in Stability AI's."""
    source = getattr(checkpoints, request.param)(tmp_path / "diffusers")
    return source, LAYOUTS[request.param](source, tmp_path / "stability")


def test_install_of_stability_layout_gives_the_same_sound(layout: tuple[Path, Path], tmp_path: Path):
    source, given = layout
    before = {file.relative_to(given): file.read_bytes() for file in given.rglob("*") if file.is_file()}
    assert install(given, tmp_path / "installed", "tiny") is None
    assert before == {file.relative_to(given): file.read_bytes() for file in given.rglob("*") if file.is_file()}
    assert not (tmp_path / "installed" / "model.safetensors").exists()
    expected, made = load(source), load(tmp_path / "installed")
    for model in (expected, made):
        assert model.spec is expected.spec
    for changes in ({}, {"guidance": 1.0, "seeds": (1, 2)}):
        wanted = wave_order(scheduler=expected.spec.facts.schedulers[0], **changes)
        reference = render(expected, wanted)
        assert np.abs(reference).max() > AUDIBLE_PEAK
        np.testing.assert_allclose(render(made, wanted), reference, atol=1e-4)


def test_install_of_stability_layout_replaces_what_it_wrote_before(layout: tuple[Path, Path], tmp_path: Path):
    _, given = layout
    install(given, tmp_path / "installed", "tiny")
    assert install(given, tmp_path / "installed", "tiny") is None, "nothing of the first one is kept"


def changed(given: Path, path: str, value: object) -> None:
    config = json.loads((given / CONFIG_NAME).read_text())
    block = config
    *keys, last = path.split(".")
    for key in keys:
        block = block[int(key) if key.isdigit() else key]
    block[last] = value
    (given / CONFIG_NAME).write_text(json.dumps(config))


def refusal(given: Path, target: Path) -> TimbredError:
    with pytest.raises((ModelError, MissingWeights)) as refused:
        install(given, target, "tiny")
    assert not target.exists()
    return refused.value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.pretransform.config.encoder.type", "taae"),
        ("model.pretransform.config.decoder.type", "seanet"),
        ("model.diffusion.type", "uvit"),
        ("model.diffusion.diffusion_objective", "consistency"),
        ("model.diffusion.config.attn_kwargs", {"qk_norm": "ln"}),
        ("model.diffusion.config.norm_type", "dyt"),
    ],
)
def test_install_of_stability_layout_names_an_unknown_block(
    layout: tuple[Path, Path], tmp_path: Path, path: str, value: object
):
    _, given = layout
    changed(given, path, value)
    message = str(refusal(given, tmp_path / "installed"))
    assert "unknown block" in message
    assert path in message
    assert str(value["qk_norm"] if isinstance(value, dict) else value) in message


def test_install_of_stability_layout_names_an_unknown_conditioner(layout: tuple[Path, Path], tmp_path: Path):
    _, given = layout
    changed(given, "model.conditioning.configs.0.type", "clap_text")
    assert "prompt is 'clap_text'" in str(refusal(given, tmp_path / "installed"))


@pytest.mark.parametrize("name", ["model.model.extra.weight", "pretransform.model.encoder.layers.99.weight", "other"])
def test_install_of_stability_layout_names_an_unknown_tensor(layout: tuple[Path, Path], tmp_path: Path, name: str):
    source, given = layout
    if name.startswith("pretransform") and "stable_audio_3" not in str(json.loads((source / INDEX_NAME).read_text())):
        name = "elsewhere." + name
    tensors = load_file(given / "model.safetensors")
    save_file({**tensors, name: torch.ones(2)}, given / "model.safetensors")
    assert name.removeprefix("model.model.") in str(refusal(given, tmp_path / "installed"))


def test_install_of_stability_layout_names_an_incomplete_layer(layout: tuple[Path, Path], tmp_path: Path):
    _, given = layout
    tensors = load_file(given / "model.safetensors")
    del tensors["model.model.transformer.layers.1.self_attn.to_out.weight"]
    save_file(tensors, given / "model.safetensors")
    assert "layer 1 of its network is incomplete" in str(refusal(given, tmp_path / "installed"))


def test_install_of_stability_layout_without_its_text_encoder_says_where_it_goes(
    layout: tuple[Path, Path], tmp_path: Path
):
    _, given = layout
    encoder = next(path for path in given.iterdir() if path.is_dir())
    shutil.rmtree(encoder)
    assert f"put {encoder.name} into {encoder.name} beside {CONFIG_NAME}" in str(refusal(given, tmp_path / "installed"))


def test_install_of_stability_layout_refuses_a_checkpoint_of_pickles(layout: tuple[Path, Path], tmp_path: Path):
    _, given = layout
    (given / "model.safetensors").rename(given / "model.ckpt")
    assert "a .ckpt isn't opened" in str(refusal(given, tmp_path / "installed"))


def test_is_stability_tells_the_layouts_apart(layout: tuple[Path, Path]):
    source, given = layout
    assert is_stability(given)
    assert not is_stability(source)
    shutil.copy(given / CONFIG_NAME, source)
    assert not is_stability(source)
