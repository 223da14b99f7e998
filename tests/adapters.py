"""Random LoRAs over any network, written by peft itself."""

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import save_file

LAYERS = ["to_q", "to_k", "to_v", "to_out.0"]
"""Endings of the names of attention layers, which all families have."""


def adapt(network: Any, rank: int = 4, alpha: int = 8, layers: list[str] = LAYERS, seed: int = 1) -> LoraConfig:
    """Add a random LoRA to a network in place; both matrices are random, so that it is heard."""
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers)
    inject_adapter_in_model(config, network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return config


def save_peft(network: Any, config: LoraConfig, folder: Path) -> Path:
    """Write the LoRA of a network as peft does: weights, and their configuration beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(network)
    save_file({f"base_model.model.{name}": tensor.contiguous() for name, tensor in state.items()},
              folder / "adapter_model.safetensors")  # fmt: skip
    facts = {"peft_type": "LORA", "r": config.r, "lora_alpha": config.lora_alpha, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(facts))
    return folder / "adapter_model.safetensors"
