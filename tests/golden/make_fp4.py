#!/usr/bin/env python3
"""Matrices of four-bit floats (MXFP4, NVFP4), packed int8 and int4 with an order of columns, and the f32 values that they mean, for
tests/unit/test_codes.c. compressed-tensors: compressed and decompressed by the library; MLX: by mlx.core; modelopt: compressed-tensors'
NVFP4 with the reciprocal of its scale for all, which is how it differs.

usage: make_fp4.py [OUTDIR]     needs numpy, torch, safetensors, compressed-tensors and mlx[cpu]; seeds are fixed
"""
import json
import os
import sys

import mlx.core as mx
import numpy as np
import torch
from compressed_tensors.compressors import MXFP4PackedCompressor, NVFP4PackedCompressor, PackedQuantizationCompressor
from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from safetensors.torch import save_file

from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.quant_scheme import MXFP4A16, NVFP4A16

torch.manual_seed(15)


def scheme(args, form):
    return QuantizationScheme(targets=["Linear"], weights=args, format=form)


def run(compressor, state, s, name):
    """The library's parts under the module's name, and the f32 values that it makes of them."""
    parts = compressor.compress(state, s)
    values = compressor.decompress(dict(parts), s)["weight"].float()
    return {f"{name}.{k}": v.contiguous().clone() for k, v in parts.items()}, {f"{name}.weight": values}


def groups(w, g):
    return w.reshape(w.shape[0], -1, g).abs().amax(-1)


def mx_matrix(name, rows, cols):
    w = torch.randn(rows, cols)
    s = scheme(QuantizationArgs(**MXFP4A16["weights"].model_dump()), "mxfp4-pack-quantized")
    scale = torch.exp2(torch.floor(torch.log2(groups(w, 32))) - 2)
    return run(MXFP4PackedCompressor, {"weight": w, "weight_scale": scale}, s, name), s


def nv_matrix(name, rows, cols):
    w = torch.randn(rows, cols)
    s = scheme(QuantizationArgs(**NVFP4A16["weights"].model_dump()), "nvfp4-pack-quantized")
    whole = (448 * 6 / w.abs().max()).reshape(1)
    scale = (groups(w, 16) / 6 * whole).to(torch.float8_e4m3fn).float()
    parts, _ = run(NVFP4PackedCompressor, {"weight": w, "weight_scale": scale, "weight_global_scale": whole}, s, name)
    # the library decompresses to bf16; its codes and scales say more
    level = unpack_fp4_from_uint8(parts[f"{name}.weight_packed"], rows, cols, dtype=torch.float32)
    value = level * (parts[f"{name}.weight_scale"].float() / whole).repeat_interleave(16, 1)
    return (parts, {f"{name}.weight": value}), s


def moved_matrix(name, rows, cols, group):
    """int4 whose columns are of groups in an order of their own: the library no longer makes such, so all but packing is by definition."""
    order = torch.randperm(cols).argsort() // group
    q = torch.randint(-8, 8, (rows, cols), dtype=torch.int8)
    scale = (torch.rand(rows, cols // group) + 0.5).half()
    parts = {"weight_packed": pack_to_int32(q, 4), "weight_scale": scale, "weight_g_idx": order.int(), "weight_shape": torch.tensor([rows, cols])}
    args = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": group, "actorder": "group"}
    want = {f"{name}.weight": q.float() * scale.float()[:, order]}
    return ({f"{name}.{k}": v for k, v in parts.items()}, want), {"targets": [name], "weights": args, "format": "pack-quantized"}


def one_matrix(name, rows, cols):
    """int4 under one scale."""
    w = torch.randn(rows, cols)
    s = scheme(QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="tensor"), "pack-quantized")
    return run(PackedQuantizationCompressor, {"weight": w, "weight_scale": (w.abs().max() / 7.5).half().float().reshape(1)}, s, name), s


def ct():
    """Mixed: a group of the configuration for each."""
    parts, want, config = {}, {}, {}
    made = [mx_matrix("mx", 6, 64), nv_matrix("nv", 6, 48), moved_matrix("moved", 8, 64, 32), one_matrix("one", 5, 32)]
    for (p, v), s in made:
        name = next(iter(v)).split(".")[0]
        parts |= p
        want |= v
        group = s if isinstance(s, dict) else s.model_dump(mode="json") | {"targets": [name]}
        config[f"group_{len(config)}"] = group
    return parts, want, {"quantization_config": {"quant_method": "compressed-tensors", "format": "mixed-precision",
                                                 "quantization_status": "compressed", "config_groups": config, "ignore": []}}


def modelopt():
    (p, v), _ = nv_matrix("nv", 6, 48)
    parts = {"nv.weight": p["nv.weight_packed"], "nv.weight_scale": p["nv.weight_scale"],
             "nv.weight_scale_2": (1 / p["nv.weight_global_scale"]).reshape(()), "nv.input_scale": torch.tensor(0.5)}
    return parts, v, {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}


def mlx():
    parts, want = {}, {}
    config = {"group_size": 32, "bits": 4, "mode": "mxfp4"}
    for name, mode, g in (("mx", "mxfp4", 32), ("nv", "nvfp4", 16)):
        w = mx.array(np.random.default_rng(16).normal(0, 1, (6, 64)).astype(np.float32))
        q, s = mx.quantize(w, group_size=g, bits=4, mode=mode)
        v = mx.dequantize(q, s, group_size=g, bits=4, mode=mode)
        parts[f"{name}.weight"] = torch.from_numpy(np.array(q).view(np.int32)).view(torch.uint32)
        parts[f"{name}.scales"] = torch.from_numpy(np.array(s))
        want[f"{name}.weight"] = torch.from_numpy(np.array(v.astype(mx.float32)))
        if mode != config["mode"]:
            config[name] = {"group_size": g, "bits": 4, "mode": mode}
    return parts, want, {"quantization": config}


if __name__ == "__main__":
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "codes")
    for folder, case in (("ct", ct), ("modelopt", modelopt), ("mlx_fp4", mlx)):
        parts, want, config = case()
        parts["plain.weight"] = torch.ones(2, 2)
        os.makedirs(os.path.join(out, folder), exist_ok=True)
        save_file(parts, os.path.join(out, folder, "model.safetensors"))
        save_file(want, os.path.join(out, folder, "values.safetensors"))
        with open(os.path.join(out, folder, "config.json"), "w") as f:
            json.dump(config, f, indent=1, sort_keys=True)
            f.write("\n")
    sys.stdout.flush()
    os._exit(0)  # threads of the two libraries can wait for each other at the end
