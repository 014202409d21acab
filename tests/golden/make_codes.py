#!/usr/bin/env python3
"""Matrices in the codes of GPTQ, AWQ and MLX, and the f32 values that they mean, for tests/unit/test_codes.c.

MLX: quantized and dequantized by mlx.core itself. AWQ: packed here, values by AutoAWQ's dequantize_gemm. GPTQ: packed and
valued here from the definition of its layout, and compared to GPTQModel's TorchLinear.dequantize_weight where that can be imported.

usage: make_codes.py [OUTDIR]     needs numpy, torch, safetensors, mlx[cpu] and the sources of autoawq in PYTHONPATH; seeds are fixed
"""
import importlib.util
import json
import os
import sys

import mlx.core as mx
import numpy as np
import torch
from safetensors.torch import save_file

rng = np.random.default_rng(14)


def grid(rows, cols, bits, group, symmetric, low):
    """Codes [rows, cols], f16 scales and zero points [rows, groups]; zero points from `low`."""
    groups = -(-cols // group)
    q = rng.integers(0, 2**bits, (rows, cols))
    s = (rng.uniform(0.5, 2, (rows, groups)) / 2**bits).astype(np.float16)
    z = np.full((rows, groups), 2 ** (bits - 1)) if symmetric else rng.integers(low, 2**bits, (rows, groups))
    return q, s, z


def stream(a, bits):
    """Along the last axis, element k at bit k * bits, as int32 words."""
    b = (a[..., None] >> np.arange(bits)) & 1
    return np.packbits(b.reshape(*a.shape[:-1], -1).astype(np.uint8), axis=-1, bitorder="little").view("<i4").copy()


def tensors(**parts):
    return {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in parts.items()}


# ---- GPTQ


def gptq_matrix(name, rows, cols, bits, group, symmetric, moved, first, scale_type=torch.float16):
    q, s, z = grid(rows, cols, bits, group, symmetric, 0)
    order = np.arange(cols) // group
    if moved:
        order = rng.permutation(order)
    stored = stream(z.T, bits)
    if first and bits != 3:  # GPTQModel's convert_gptq_v2_to_v1_format: less one in every field of a whole word
        stored = (stored.view(np.uint32) - np.uint32(sum(1 << k for k in range(0, 32, bits)))).view(np.int32)
    elif first:
        stored = stream((z.T - 1) % 8, bits)
    scale = torch.from_numpy(s).to(scale_type)
    wide = scale.float().numpy()
    want = wide[:, order] * (q - z[:, order]).astype(np.float32)
    out = tensors(qweight=stream(q, bits).T, qzeros=stored, g_idx=order.astype(np.int32))
    out["scales"] = scale.T.contiguous()
    return {f"{name}.{k}": v for k, v in out.items()}, {f"{name}.weight": torch.from_numpy(want)}


def check_gptq(parts, want, name, bits, group, first):
    """With the program that most such files come from, where it is there."""
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module

    rows, cols = want.shape
    m = TorchLinear(bits=bits, group_size=group, sym=False, desc_act=True, in_features=cols, out_features=rows, bias=False,
                    pack_dtype=torch.int32, register_buffers=True)
    for k in ("qweight", "qzeros", "scales", "g_idx"):
        setattr(m, k, parts[f"{name}.{k}"].clone())
    if first:
        convert_gptq_v1_to_v2_format_module(m, bits, torch.int32)
    got = m.dequantize_weight().T.float()
    miss = (got - want).abs().max().item()
    print(f"gptq {name}: GPTQModel differs by {miss:g} of {want.abs().max().item():g} (its values are as its scales)")
    assert miss <= torch.finfo(m.scales.dtype).eps * want.abs().max().item()


def gptq(first):
    have = importlib.util.find_spec("gptqmodel") is not None
    parts, want = {}, {}
    for name, *a in [
        ("b2", 96, 64, 2, 32, False, False), ("b3", 32, 64, 3, 32, False, False), ("b4", 96, 64, 4, 32, False, False),
        ("b8", 32, 64, 8, 32, False, False), ("sym", 32, 64, 4, 32, True, False), ("row", 32, 64, 4, 64, False, False),
        ("moved", 32, 64, 4, 32, False, True), ("moved3", 32, 64, 3, 32, False, True), ("long", 32, 512, 4, 256, False, False),
        ("short", 32, 64, 4, 16, False, False), ("brain", 32, 64, 4, 32, False, False),
    ]:
        p, w = gptq_matrix(name, *a, first, torch.bfloat16 if name == "brain" else torch.float16)
        if have:
            check_gptq(p, w[name + ".weight"], name, a[2], a[3], first)
        parts |= p
        want |= w
    settings = dict(quant_method="gptq", bits=4, group_size=32, desc_act=True, sym=False, checkpoint_format="gptq" if first else "gptq_v2")
    return parts, want, {"quantization_config": settings}


# ---- AWQ


def awq():
    # the file alone: the package asks for programs that its unpacking has no need of
    file = next(f for f in (os.path.join(d, "awq/utils/packing_utils.py") for d in sys.path) if os.path.exists(f))
    spec = importlib.util.spec_from_file_location("packing_utils", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dequantize_gemm = module.dequantize_gemm
    place = [0, 2, 4, 6, 1, 3, 5, 7]  # nibble k of a word is output place[k]
    parts, want = {}, {}
    for name, rows, cols, group in [("g32", 96, 64, 32), ("g64", 40, 128, 64), ("row", 32, 64, 64)]:
        q, s, z = grid(rows, cols, 4, group, False, 0)
        mixed = [stream(a.T.reshape(a.shape[1], -1, 8)[:, :, place].reshape(a.shape[1], -1), 4) for a in (q, z)]
        p = tensors(qweight=mixed[0], qzeros=mixed[1], scales=s.T)
        values = dequantize_gemm(p["qweight"], p["qzeros"], p["scales"].float(), 4, group)
        assert np.array_equal(values.T.numpy(), s.astype(np.float32).repeat(group, 1) * (q - z.repeat(group, 1)).astype(np.float32))
        parts |= {f"{name}.{k}": v for k, v in p.items()}
        want[name + ".weight"] = values.T.contiguous().float()
    settings = dict(quant_method="awq", bits=4, group_size=32, zero_point=True, version="gemm", modules_to_not_convert=None)
    return parts, want, {"quantization_config": settings}


# ---- MLX


def mlx():
    parts, want, own = {}, {}, {}
    settings = dict(group_size=32, bits=4)
    for name, shape, bits, group, kind in [
        ("b2", (96, 64), 2, 32, mx.float16), ("b3", (32, 64), 3, 32, mx.float16), ("b4", (32, 64), 4, 32, mx.float16),
        ("b5", (32, 64), 5, 32, mx.float16), ("b6", (32, 64), 6, 32, mx.float16), ("b8", (32, 64), 8, 32, mx.float16),
        ("g64", (32, 128), 4, 64, mx.bfloat16), ("g128", (32, 128), 3, 128, mx.bfloat16), ("wide", (32, 64), 4, 32, mx.float32),
        ("experts", (3, 8, 64), 4, 32, mx.float16),
    ]:
        w = mx.array(rng.normal(0, 0.05, shape).astype(np.float32)).astype(kind)
        q, s, b = mx.quantize(w, group_size=group, bits=bits)
        assert s.dtype == kind and b.dtype == kind
        values = mx.dequantize(q, s.astype(mx.float32), b.astype(mx.float32), group_size=group, bits=bits)
        half = dict(zip((mx.float16, mx.bfloat16, mx.float32), (torch.float16, torch.bfloat16, torch.float32)))[kind]
        parts[name + ".weight"] = torch.from_numpy(np.array(q).view(np.int32)).view(torch.uint32)
        parts[name + ".scales"] = torch.from_numpy(np.array(s.astype(mx.float32))).to(half)
        parts[name + ".biases"] = torch.from_numpy(np.array(b.astype(mx.float32))).to(half)
        want[name + ".weight"] = torch.from_numpy(np.array(values))
        if (bits, group) != (4, 32):
            own[name] = dict(group_size=group, bits=bits)
    return parts, want, {"quantization": settings | own, "quantization_config": settings | own}


def write(folder, parts, want, config, kind):
    os.makedirs(folder, exist_ok=True)
    parts["plain.weight"] = torch.full((2, 4), 0.5, dtype=torch.float16)
    save_file({k: v.contiguous() for k, v in parts.items()}, os.path.join(folder, "model.safetensors"), metadata={"format": kind})
    save_file({k: v.contiguous() for k, v in want.items()}, os.path.join(folder, "values.safetensors"))
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "codes")
    write(os.path.join(root, "gptq"), *gptq(True), "pt")
    write(os.path.join(root, "gptq_v2"), *gptq(False), "pt")
    write(os.path.join(root, "awq"), *awq(), "pt")
    write(os.path.join(root, "mlx"), *mlx(), "mlx")
