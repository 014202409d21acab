#!/usr/bin/env python3
"""Tiny random checkpoints and what Hugging Face computes with them (f32), for tests/unit/test_model.c.

usage: make_model.py [OUTDIR [CASE...]]     needs torch and transformers; seeds are fixed
"""
import json
import os
import sys

import torch
from safetensors.torch import save_file
from transformers import (Gemma2Config, Gemma2ForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, GemmaConfig, GemmaForCausalLM,
                          GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig,
                          LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM,
                          Qwen3Config, Qwen3ForCausalLM)

LEN = 40  # tokens of a sequence; two sequences a case
BASE = dict(vocab_size=72, hidden_size=40, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=64, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, attn_implementation="eager")


def rope(kind, theta=10000.0, **more):
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=theta, **more))


CASES = {
    "llama-mha": (LlamaConfig, LlamaForCausalLM, dict(num_key_value_heads=4)),
    "llama-gqa-bias": (LlamaConfig, LlamaForCausalLM, dict(num_key_value_heads=2, attention_bias=True, mlp_bias=True)),
    "llama-tied": (LlamaConfig, LlamaForCausalLM, dict(num_key_value_heads=1, head_dim=14, tie_word_embeddings=True)),
    "llama-gelu": (LlamaConfig, LlamaForCausalLM, dict(num_key_value_heads=2, hidden_act="gelu")),
    "llama-llama3": (LlamaConfig, LlamaForCausalLM, dict(
        num_key_value_heads=2, **rope("llama3", theta=500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                      original_max_position_embeddings=32))),
    "llama-linear": (LlamaConfig, LlamaForCausalLM, dict(num_key_value_heads=2, **rope("linear", factor=4.0))),
    "llama-yarn": (LlamaConfig, LlamaForCausalLM, dict(
        num_key_value_heads=2, head_dim=24, **rope("yarn", theta=1000.0, factor=4.0, original_max_position_embeddings=32))),
    "mistral-window": (MistralConfig, MistralForCausalLM, dict(num_key_value_heads=2, sliding_window=9)),
    "qwen2-bias": (Qwen2Config, Qwen2ForCausalLM, dict(num_key_value_heads=2)),
    "qwen2-window": (Qwen2Config, Qwen2ForCausalLM, dict(num_hidden_layers=3, num_key_value_heads=2, sliding_window=7,
                                                         use_sliding_window=True, max_window_layers=1)),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, dict(num_key_value_heads=2, head_dim=16)),
}
# What a loader must see through; transformers reads each folder back and has the last word on the logits.
ODD = {
    # tie_word_embeddings says tied, but a head is stored and differs
    "llama-untied": (LlamaConfig, LlamaForCausalLM, dict(num_key_value_heads=2)),
    # LlamaModel saved by itself (no prefix) with the buffers that old checkpoints carry
    "llama-bare": (LlamaConfig, LlamaForCausalLM, dict(num_key_value_heads=2, tie_word_embeddings=True)),
    # only the head is stored of a tied pair
    "llama-head-only": (LlamaConfig, LlamaForCausalLM, dict(num_key_value_heads=2, tie_word_embeddings=True)),
    # keys that neither class reads
    "llama-types": (LlamaConfig, LlamaForCausalLM, dict(num_key_value_heads=2)),
    "mistral-types": (MistralConfig, MistralForCausalLM, dict(num_key_value_heads=2, sliding_window=9)),
}

# later ones come last: a case's place is its seed
MORE = {
    "gemma": (GemmaConfig, GemmaForCausalLM, dict(num_key_value_heads=1, head_dim=16)),
    # a scale of scores that is not that of head_dim, caps low enough to bend, windows on every second layer
    "gemma2": (Gemma2Config, Gemma2ForCausalLM, dict(
        num_hidden_layers=3, num_key_value_heads=2, head_dim=16, query_pre_attn_scalar=24, attn_logit_softcapping=5.0,
        final_logit_softcapping=8.0, sliding_window=9)),
    # two rotary bases, the longer one scaled, and a window in all layers but the third
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM, dict(
        num_hidden_layers=4, num_key_value_heads=2, head_dim=16, query_pre_attn_scalar=24, final_logit_softcapping=8.0,
        sliding_window=9, layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters=dict(full_attention=dict(rope_type="linear", factor=4.0, rope_theta=3000.0),
                             sliding_attention=dict(rope_type="default", rope_theta=200.0)))),
    # the same in the keys of older files
    "gemma3-old": (Gemma3TextConfig, Gemma3ForCausalLM, dict(
        num_hidden_layers=4, num_key_value_heads=2, head_dim=16, query_pre_attn_scalar=16, sliding_window=9, sliding_window_pattern=3,
        rope_parameters=dict(full_attention=dict(rope_type="default", rope_theta=3000.0),
                             sliding_attention=dict(rope_type="default", rope_theta=10000.0)))),
    # sequences through both of its blocks at once, half of a head turned, Q, K and V of a head one after the other
    "gpt-neox": (GPTNeoXConfig, GPTNeoXForCausalLM, dict(
        rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.4))),
    # one block after the other, no bias in attention, the keys of older files
    "gpt-neox-old": (GPTNeoXConfig, GPTNeoXForCausalLM, dict(
        hidden_act="gelu_new", use_parallel_residual=False, attention_bias=False,
        rope_parameters=dict(rope_type="default", rope_theta=500.0, partial_rotary_factor=1.0))),
    "gpt2": (GPT2Config, GPT2LMHeadModel, dict()),
    # without the prefix of the class, with the causal masks that old files carry, and a feed-forward of its own width
    "gpt2-old": (GPT2Config, GPT2LMHeadModel, dict(n_inner=56, tie_word_embeddings=False)),
}
KEYS = {
    "llama-untied": dict(tie_word_embeddings=True),
    "llama-bare": dict(architectures=["LlamaModel"]),
    "llama-types": dict(sliding_window=8, layer_types=["sliding_attention", "full_attention"]),
    "mistral-types": dict(layer_types=["sliding_attention", "full_attention"]),
}


def odd_tensors(name, tensors):
    if name == "llama-bare":
        tensors = {k.removeprefix("model."): v for k, v in tensors.items()}
        tensors["rotary_emb.inv_freq"] = torch.ones(5)
        tensors["layers.1.self_attn.rotary_emb.inv_freq"] = torch.ones(5)
    if name.startswith("gpt-neox"):
        tensors["embed_out.weight"] = tensors.pop("lm_head.weight")  # as transformers saves it
    if name == "gpt2-old":
        tensors = {k.removeprefix("transformer."): v for k, v in tensors.items()}
        tensors["h.0.attn.bias"] = torch.ones(1, 1, 4, 4).half()
        tensors["h.1.attn.masked_bias"] = torch.tensor(-1e4).half()
    if name == "llama-head-only":
        tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    return tensors


LEGACY = ("llama-linear", "llama-yarn", "mistral-window")  # rope_theta and rope_scaling, as before transformers 5


def make(name, seed, root):
    config_class, model_class, changes = {**CASES, **ODD, **MORE}[name]
    torch.manual_seed(seed)
    model = model_class(config_class(**{**base_of(name), **changes})).float().eval()
    with torch.no_grad():
        for key, p in model.named_parameters():
            # norms near 1 and not all equal; matrices large enough that every part shows in the logits
            one = 0 if name.startswith("gemma") else 1  # these norms add it themselves
            p.copy_(one + 0.3 * torch.randn_like(p) if "norm" in key or ".ln_" in key else torch.randn_like(p) * (0.5 if "bias" in key else 0.2))
            p.copy_(p.half().float())
        tokens = torch.randint(0, BASE["vocab_size"], (2, LEN))
        logits = model(tokens).logits
    folder = os.path.join(root, name)
    os.makedirs(folder, exist_ok=True)
    tied = model.config.tie_word_embeddings
    tensors = {k: v.half().contiguous() for k, v in model.state_dict().items() if not (tied and k == "lm_head.weight")}
    tensors = odd_tensors(name, tensors)
    save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    config = model.config.to_dict()
    config["architectures"] = [model_class.__name__]
    for key in ("_name_or_path", "transformers_version", "torch_dtype", "_attn_implementation"):
        config.pop(key, None)
    if name == "gemma3-old":
        dicts = config.pop("rope_parameters")
        for key in ("layer_types", "_sliding_window_pattern"):
            config.pop(key)
        config.update(sliding_window_pattern=3, rope_theta=dicts["full_attention"]["rope_theta"], rope_scaling=None,
                      rope_local_base_freq=dicts["sliding_attention"]["rope_theta"])
    if name == "gpt-neox-old":
        rope_dict = config.pop("rope_parameters")
        config.update(rotary_pct=rope_dict["partial_rotary_factor"], rotary_emb_base=rope_dict["rope_theta"])
    if name in LEGACY:
        rope_dict = config.pop("rope_parameters")
        config["rope_theta"] = rope_dict.pop("rope_theta")
        rope_dict["type"] = rope_dict.pop("rope_type")
        config["rope_scaling"] = None if rope_dict["type"] == "default" else rope_dict
    config.update(KEYS.get(name, {}))
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f, indent=1, sort_keys=True)
        f.write("\n")
    if name in ODD or name.endswith("-old"):
        with torch.no_grad():
            logits = model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()(tokens).logits
    tokens.numpy().astype("<i4").tofile(os.path.join(folder, "tokens.bin"))
    # every fourth position, so that the files stay small
    logits[:, 3::4].numpy().astype("<f4").tofile(os.path.join(folder, "logits.bin"))


def base_of(name):
    if not name.startswith("gpt"):
        return BASE
    base = {k: v for k, v in BASE.items() if k != "rms_norm_eps"}
    if name.startswith("gpt-neox"):
        return dict(base, layer_norm_eps=1e-5)
    renamed = dict(hidden_size="n_embd", num_hidden_layers="n_layer", num_attention_heads="n_head", max_position_embeddings="n_positions")
    return {renamed.get(k, k): v for k, v in base.items() if k != "intermediate_size"}


if __name__ == "__main__":
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "model")
    for i, case in enumerate([*CASES, *ODD, *MORE]):
        if len(sys.argv) < 3 or case in sys.argv[2:]:
            make(case, 100 + i, out)
