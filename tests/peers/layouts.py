#!/usr/bin/env python3
"""Folders that quire writes in other programs' layouts, loaded by those programs: the logits are those of transformers in f32 over the
weights that quire decodes. Each program is imported where it is installed, and left out with the reason where it is not.

usage: layouts.py [MODEL]      environment: QUIRE (default build/bin/quire)
needs: torch transformers safetensors; and any of compressed-tensors, gptqmodel, mlx[cpu] mlx-lm
"""
import os
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import torch
    import transformers  # noqa: F401
except ImportError as missing:
    print(f"ok - layouts # SKIP {missing}: pip install torch transformers safetensors compressed-tensors gptqmodel 'mlx[cpu]' mlx-lm")
    sys.exit(0)

os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # compiling takes longer than all else
QUIRE = os.environ.get("QUIRE", "build/bin/quire")
MODEL = sys.argv[1] if len(sys.argv) > 1 else "examples/demo"
IDS = [1] + [int(i) for i in np.random.default_rng(1).integers(3, 900, 31)]
passed = failed = skipped = 0


def quire(*args):
    subprocess.run([QUIRE, *args, "-q"], check=True)


def reference(folder):
    from transformers import AutoModelForCausalLM

    quire("convert", folder, "-o", folder + "-f32", "--dtype", "f32", "-f")
    m = AutoModelForCausalLM.from_pretrained(folder + "-f32", dtype=torch.float32)
    with torch.no_grad():
        return m(torch.tensor([IDS])).logits[0].numpy()


def by_transformers(folder):
    import compressed_tensors  # noqa: F401
    from transformers import AutoModelForCausalLM

    # four-bit floats are decompressed to bf16 whatever is asked for
    m = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16 if "mxfp4" in folder else torch.float32)
    with torch.no_grad():
        return m(torch.tensor([IDS])).logits[0].float().numpy(), 3e-2  # scales and products are the model's bf16


def by_gptqmodel(folder):
    from gptqmodel import BACKEND, GPTQModel

    m = GPTQModel.load(folder, backend=BACKEND.TORCH, device="cpu", dtype=torch.float16)
    with torch.no_grad():
        return m.model(torch.tensor([IDS])).logits[0].float().numpy(), 2e-2  # activations are f16


def by_mlx(folder):
    import mlx.core as mx
    from mlx_lm import load

    m, _ = load(folder)
    m.set_dtype(mx.float32)
    return np.array(m(mx.array([IDS])).astype(mx.float32))[0], 1e-5


CASES = [
    ("int4-g64", "hf", by_transformers),
    ("int4-g32-zp", "hf", by_transformers),
    ("int8-row", "hf", by_transformers),
    ("W8A8", "hf", by_transformers),
    ("mxfp4", "hf", by_transformers),
    ("int4-g64", "gptq", by_gptqmodel),
    ("int4-g128-zp", "gptq", by_gptqmodel),
    ("int8-g64", "gptq", by_gptqmodel),
    ("int3-g64", "gptq", by_gptqmodel),
    ("int4-g64", "awq", by_gptqmodel),
    ("int4-g64", "mlx", by_mlx),
    ("int3-g32", "mlx", by_mlx),
    ("int6-g64-bias", "mlx", by_mlx),
    ("int8-g128", "mlx", by_mlx),
    ("mxfp4", "mlx", by_mlx),
]


def run(scheme, to, program, place):
    global passed, failed, skipped
    name = f"{scheme} as {to}, {program.__name__[3:]}"
    folder = os.path.join(place, f"{to}-{scheme}")
    quire("quantize", MODEL, "-o", folder, "--to", to, "-s", scheme, "-m", "rtn")
    want = reference(folder)
    try:
        got, limit = program(folder)
    except ImportError as why:
        print(f"ok - {name} # SKIP {why}", flush=True)
        skipped += 1
        return
    except Exception as why:  # what a program says of a folder is the result
        print(f"not ok - {name}: {type(why).__name__}: {str(why)[:300]}", flush=True)
        failed += 1
        return
    miss = float(np.abs(got - want).max() / np.abs(want).max())
    good = miss <= limit
    print(f"{'ok' if good else 'not ok'} - {name}: logits differ by {miss:.2g} of the largest", flush=True)
    passed += good
    failed += not good


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        for case in CASES:
            run(*case, place)
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    os._exit(failed > 0)  # threads of the libraries can wait for each other at the end
