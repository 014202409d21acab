#!/usr/bin/env python3
"""Tiny checkpoints in 8 bits with scales, and what transformers computes with the weights they stand for (f32), for
tests/unit/test_packed.c. Those named ct-* are compressed by the compressed-tensors library; the others follow
transformers' finegrained_fp8 (W8 * scale_inv per block) and its fbgemm_fp8 (a scale per row).

usage: make_packed.py [OUTDIR]     needs torch, transformers and compressed-tensors; seeds are fixed
"""
import json
import os
import sys

import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme, apply_quantization_config
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

LEN = 24
BASE = dict(vocab_size=72, hidden_size=40, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=64, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, attn_implementation="eager")


def model(seed):
    torch.manual_seed(seed)
    m = LlamaForCausalLM(LlamaConfig(**BASE)).float().eval()
    with torch.no_grad():
        for key, p in m.named_parameters():
            p.copy_(1 + 0.3 * torch.randn_like(p) if "norm" in key else torch.randn_like(p) * 0.2)
            p.copy_(p.half().float())
    return m


def linears(m):
    return [(n, x) for n, x in m.named_modules() if isinstance(x, torch.nn.Linear) and n != "lm_head"]


def blocks(m, rows, cols, dtype, suffix, scale_dtype=torch.float32, static=False):
    """Codes and scales by definition; the model's weights become what they stand for. rows or cols 0: all."""
    out = {}
    for name, x in linears(m):
        w = x.weight.data
        r, c = rows or w.shape[0], cols or w.shape[1]
        scale = torch.zeros(-(-w.shape[0] // r), -(-w.shape[1] // c))
        codes = torch.zeros(w.shape, dtype=dtype)
        for i in range(scale.shape[0]):
            for j in range(scale.shape[1]):
                at = (slice(i * r, (i + 1) * r), slice(j * c, (j + 1) * c))
                scale[i, j] = (w[at].abs().max() / torch.finfo(dtype).max).to(scale_dtype).float()
                codes[at] = (w[at] / scale[i, j]).to(dtype)
                w[at] = codes[at].float() * scale[i, j]
        out[name + ".weight"] = codes
        out[name + "." + suffix] = (scale if scale.numel() > 1 else scale.reshape(())).to(scale_dtype)
        if static:
            out[name + ".activation_scale"] = torch.tensor(0.25)
    return out


def compressed(m, strategy, kind, bits=8, scale_dtype=torch.float32, **more):
    args = QuantizationArgs(num_bits=bits, type=kind, symmetric=True, strategy=strategy, **more)
    scheme = QuantizationScheme(targets=["Linear"], weights=args, format="float-quantized" if kind == "float" else "int-quantized")
    config = QuantizationConfig(config_groups={"group_0": scheme}, ignore=["lm_head"],
                                format="float-quantized" if kind == "float" else "int-quantized", quantization_status="frozen")
    apply_quantization_config(m, config)
    for _, x in linears(m):
        w = x.weight.data
        if strategy == "tensor":
            low, high = w.min().reshape(1), w.max().reshape(1)
        elif strategy == "group":
            g = w.reshape(w.shape[0], -1, args.group_size)
            low, high = g.amin(-1), g.amax(-1)
        elif strategy == "block":
            r, c = args.block_structure
            cut = [[w[i:i + r, j:j + c] for j in range(0, w.shape[1], c)] for i in range(0, w.shape[0], r)]
            low, high = (torch.stack([torch.stack([f(b) for b in row]) for row in cut]) for f in (torch.min, torch.max))
        else:
            low, high = w.amin(1, keepdim=True), w.amax(1, keepdim=True)
        scale, _ = calculate_qparams(low, high, args)
        x.weight_scale.data = scale.to(scale_dtype)
    compressor = ModelCompressor(quantization_config=config)
    compressor.compress_model(m)
    tensors = {k: v.clone().contiguous() for k, v in m.state_dict().items()}
    settings = config.model_dump(mode="json")
    settings["quant_method"] = "compressed-tensors"
    settings["quantization_status"] = "compressed"
    compressor.decompress_model(m)
    return tensors, settings


def fp8(size, **more):
    return dict(quant_method="fp8", activation_scheme="dynamic", modules_to_not_convert=["lm_head"],
                **(dict(weight_block_size=size) if size else {}), **more)


E4, E5 = torch.float8_e4m3fn, torch.float8_e5m2
CASES = {
    "fp8-block": lambda m: (blocks(m, 24, 16, E4, "weight_scale_inv"), fp8([24, 16], fmt="e4m3")),
    "fp8-static": lambda m: (blocks(m, 0, 0, E4, "weight_scale_inv", static=True), fp8(None) | {"activation_scheme": "static"}),
    "fp8-e5m2": lambda m: (blocks(m, 0, 0, E5, "weight_scale", scale_dtype=torch.bfloat16), fp8(None)),
    "fbgemm": lambda m: (blocks(m, 1, 0, E4, "weight_scale"), dict(quant_method="fbgemm_fp8", modules_to_not_convert=["lm_head"])),
    "bare": lambda m: (blocks(m, 8, 8, E4, "weight_scale_inv"), None),
    "ct-tensor": lambda m: compressed(m, "tensor", "float"),
    "ct-channel": lambda m: compressed(m, "channel", "float", scale_dtype=torch.bfloat16),
    "ct-block": lambda m: compressed(m, "block", "float", block_structure=[16, 8]),
    "ct-int8": lambda m: compressed(m, "channel", "int"),
}


def make(name, seed, root):
    m = model(seed)
    plain = {k: v.clone() for k, v in m.state_dict().items()}
    tensors, settings = CASES[name](m)
    if not name.startswith("ct-"):
        tensors = {k: v for k, v in plain.items() if k not in tensors} | tensors
    tensors = {k: v.half() if v.dtype == torch.float32 and "scale" not in k else v for k, v in tensors.items()}
    tokens = torch.randint(0, BASE["vocab_size"], (2, LEN))
    with torch.no_grad():
        logits = m.float()(tokens).logits
    folder = os.path.join(root, name)
    os.makedirs(folder, exist_ok=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    config = m.config.to_dict()
    config["architectures"] = ["LlamaForCausalLM"]
    for key in ("_name_or_path", "transformers_version", "torch_dtype", "_attn_implementation", "quantization_config"):
        config.pop(key, None)
    if settings:
        config["quantization_config"] = settings
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f, indent=1, sort_keys=True)
        f.write("\n")
    tokens.numpy().astype("<i4").tofile(os.path.join(folder, "tokens.bin"))
    logits[:, 3::4].numpy().astype("<f4").tofile(os.path.join(folder, "logits.bin"))


if __name__ == "__main__":
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "packed")
    for i, case in enumerate(CASES):
        make(case, 300 + i, out)
