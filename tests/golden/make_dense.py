#!/usr/bin/env python3
"""Tiny random checkpoints of dense families and what Hugging Face computes with them (f32), for tests/unit/test_model.c.

usage: make_dense.py [CASE...]     needs torch and transformers; seeds are those of the names

A family's cases are CASES of families/NAME.py, with the vocabulary of characters/tokenizer.json, so that commands can be run on them. It may have more:
  tensors(case, tensors)   changes them to how they are stored, where the class saves others
  converter(case, config)  for make_families.py: adds to the config what llama.cpp's converter asks for and files lack
"""
import glob
import json
import os
import runpy
import sys
import zlib

import torch
import transformers
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
LEN = 40  # tokens of a sequence; two sequences a case
BASE = dict(vocab_size=48, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)


def rope(kind="default", theta=10000.0, **more):
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=theta, **more))


# what classes call otherwise
GPT = dict(hidden_size=None, intermediate_size=None, num_hidden_layers=None, num_attention_heads=None, num_key_value_heads=None,
           max_position_embeddings=None, n_embd=32, n_layer=2, n_head=4, n_positions=64)

# class, what differs from BASE (None: the class has no such key), what the file says instead (None: nothing)
CASES = {
    # four layers, the last without positions
    "smollm3": ("SmolLM3ForCausalLM", dict(num_hidden_layers=4, **rope(theta=500.0)), {}),
    # a list of its own, windows on layers without positions, a head of its own, biases
    "smollm3-list": ("SmolLM3ForCausalLM", dict(
        num_hidden_layers=3, no_rope_layers=[0, 1, 0], use_sliding_window=True, sliding_window=7, tie_word_embeddings=False,
        attention_bias=True, mlp_bias=True), dict(layer_types=None)),
    # scaled positions in the keys of older files
    "smollm3-old": ("SmolLM3ForCausalLM", dict(
        no_rope_layer_interval=2, **rope("yarn", theta=500.0, factor=2.0, original_max_position_embeddings=32)),
                    dict(no_rope_layers=None, layer_types=None, rope_parameters=None, rope_theta=500.0,
                         rope_scaling=dict(type="yarn", factor=2.0, original_max_position_embeddings=32))),
    "starcoder2": ("Starcoder2ForCausalLM", dict(**rope(theta=700.0)), {}),
    "starcoder2-window": ("Starcoder2ForCausalLM", dict(use_bias=False, sliding_window=9, tie_word_embeddings=False), {}),
}
# case -> what its file says
FAMILY = {case: family for path in sorted(glob.glob(os.path.join(HERE, "families", "*.py")))
          for family in [runpy.run_path(path, dict(rope=rope, GPT=GPT))] for case in family["CASES"]}
CASES.update((case, family["CASES"][case]) for case, family in FAMILY.items())


def make(name):
    class_name, changes, keys = CASES[name]
    model_class = getattr(transformers, class_name)
    config = {**BASE, **(dict(vocab_size=72) if name in FAMILY else {}), **changes}
    torch.manual_seed(zlib.crc32(name.encode()))
    config = model_class.config_class(**{k: v for k, v in config.items() if v is not None}, attn_implementation="eager")
    model = model_class(config).float().eval()
    with torch.no_grad():
        for key, p in model.named_parameters():
            # norms near 1 and not all equal; matrices large enough that every part shows in the logits
            vector = p.ndim == 1
            p.copy_(1 + 0.3 * torch.randn_like(p) if vector and "bias" not in key else torch.randn_like(p) * (0.5 if vector else 0.25))
            p.copy_(p.half().float())
        tokens = torch.randint(0, config.vocab_size, (2, LEN))
    folder = os.path.join(HERE, "model", name)
    os.makedirs(folder, exist_ok=True)
    tied = config.tie_word_embeddings
    tensors = {k: v.half().contiguous() for k, v in model.state_dict().items() if not (tied and k == "lm_head.weight")}
    if "tensors" in FAMILY.get(name, {}):
        FAMILY[name]["tensors"](name, tensors)
    save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    text = config.to_dict()
    text["architectures"] = [class_name]
    for key in ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "_attn_implementation"):
        text.pop(key, None)
    text = {k: v for k, v in {**text, **keys}.items() if not (k in keys and v is None)}
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(text, f, indent=1, sort_keys=True)
        f.write("\n")
    # transformers has the last word on what the folder means
    model = model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        logits = model(tokens).logits
    tokens.numpy().astype("<i4").tofile(os.path.join(folder, "tokens.bin"))
    # every fourth position, so that the files stay small
    logits[:, 3::4].numpy().astype("<f4").tofile(os.path.join(folder, "logits.bin"))


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES:
        make(case)
