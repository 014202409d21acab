#!/usr/bin/env python3
"""Tiny random mixtures of experts and what Hugging Face computes with them (f32), for tests/unit/test_experts.c.

usage: make_experts.py [OUTDIR [CASE...]]     needs torch and transformers; seeds are fixed

qwen3-moe-text has the vocabulary of examples/demo, for tests/cli/experts.sh; its last expert is seldom chosen.

Folders are saved by transformers itself, so names and keys are those that real checkpoints have; *-fused as it has the tensors in
memory.
"""
import json
import os
import sys

import torch
from transformers import MixtralConfig, MixtralForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

LEN = 40  # tokens of a sequence; two sequences a case
BASE = dict(vocab_size=72, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=64, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2)
QWEN = dict(head_dim=16, moe_intermediate_size=32, intermediate_size=96, num_experts=8, num_experts_per_tok=3, norm_topk_prob=True)

CASES = {
    "qwen3-moe": (Qwen3MoeConfig, Qwen3MoeForCausalLM, QWEN),
    # weights as the softmax over all has them; dense layers by step and by list
    "qwen3-moe-mixed": (Qwen3MoeConfig, Qwen3MoeForCausalLM, {
        **QWEN, "num_hidden_layers": 4, "num_experts": 6, "num_experts_per_tok": 2, "norm_topk_prob": False,
        "decoder_sparse_step": 2, "mlp_only_layers": [3], "attention_bias": True}),
    "mixtral": (MixtralConfig, MixtralForCausalLM, dict(intermediate_size=64, num_local_experts=4, num_experts_per_tok=2)),
    "qwen3-moe-text": (Qwen3MoeConfig, Qwen3MoeForCausalLM, dict(
        QWEN, vocab_size=1024, num_experts_per_tok=2, max_position_embeddings=256, tie_word_embeddings=True)),
    "mixtral-fused": (MixtralConfig, MixtralForCausalLM, dict(intermediate_size=48, num_local_experts=4, num_experts_per_tok=2)),
}


def make(name, seed, root):
    config_class, model_class, changes = CASES[name]
    torch.manual_seed(seed)
    model = model_class(config_class(**{**BASE, **changes})).float().eval()
    with torch.no_grad():
        for key, p in model.named_parameters():
            # norms near 1 and not all equal; matrices large enough that every part shows in the logits
            p.copy_(1 + 0.3 * torch.randn_like(p) if "norm" in key else torch.randn_like(p) * 0.2)
            p.copy_(p.half().float())
            if name.endswith("text") and "mlp.gate" in key:
                p[-1] *= 0.1
        tokens = torch.randint(0, BASE["vocab_size"], (2, LEN))
        logits = model(tokens).logits
    folder = os.path.join(root, name)
    os.makedirs(folder, exist_ok=True)
    model.half().save_pretrained(folder, save_original_format=not name.endswith("fused"))
    os.remove(os.path.join(folder, "generation_config.json"))
    path = os.path.join(folder, "config.json")
    with open(path) as f:
        config = json.load(f)
    config.pop("transformers_version", None)
    with open(path, "w") as f:
        json.dump(config, f, indent=1, sort_keys=True)
        f.write("\n")
    os.chmod(os.path.join(folder, "model.safetensors"), 0o644)
    if name.endswith("text"):
        return
    tokens.numpy().astype("<i4").tofile(os.path.join(folder, "tokens.bin"))
    # every fourth position, so that the files stay small
    logits[:, 3::4].numpy().astype("<f4").tofile(os.path.join(folder, "logits.bin"))


if __name__ == "__main__":
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "model")
    for i, case in enumerate(CASES):
        if case in (sys.argv[2:] or CASES):
            make(case, 500 + i, out)
