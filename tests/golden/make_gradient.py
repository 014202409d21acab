#!/usr/bin/env python3
"""The gradient of a KL divergence by matrices of tests/golden/model/* (f32, torch's autograd), for tests/unit/test_tape.c.

usage: make_gradient.py      needs torch and transformers; the seed is fixed

gradient/<model>.f64: tokens [2, 12]; hidden states of a teacher behind its last layer [2, 12, hidden]; the sum over tokens of
KL(teacher || model); then for each layer and each of its matrices below (of experts: all of them, one behind the other): the sum
of the gradient's squares, and every 61st element of it.
"""
import os

import torch
from transformers import AutoModelForCausalLM

here = os.path.dirname(os.path.abspath(__file__))


def dense(layer):
    a, f = layer.self_attn, layer.mlp
    return [m.weight.grad for m in (a.q_proj, a.k_proj, a.v_proj, a.o_proj, f.gate_proj, f.up_proj, f.down_proj)]


def mixture(layer):
    a, f = layer.self_attn, layer.mlp
    gate, up = f.experts.gate_up_proj.grad.chunk(2, 1)  # [experts, 2 width, hidden]
    return [a.q_proj.weight.grad, a.v_proj.weight.grad, a.o_proj.weight.grad, f.gate.weight.grad, gate, up, f.experts.down_proj.grad]


def make(name, matrices):
    torch.manual_seed(12)
    model = AutoModelForCausalLM.from_pretrained(os.path.join(here, "model", name), dtype=torch.float32, attn_implementation="eager").eval()
    config = model.config
    tokens = torch.randint(0, config.vocab_size, (2, 12))
    teacher = torch.randn(2, 12, config.hidden_size)
    cap = getattr(config, "final_logit_softcapping", None)

    def logits(hidden):
        x = model.lm_head(model.model.norm(hidden))
        return cap * torch.tanh(x / cap) if cap else x

    with torch.no_grad():
        want = torch.log_softmax(logits(teacher), -1)
    have = torch.log_softmax(model(tokens).logits, -1)
    kl = (want.exp() * (want - have)).sum()
    kl.backward()
    out = [tokens.flatten().double(), teacher.flatten().double(), kl.detach().double().reshape(1)]
    for layer in model.model.layers:
        for grad in matrices(layer):
            g = grad.double().flatten()
            out += [(g * g).sum().reshape(1), g[::61]]
    os.makedirs(os.path.join(here, "gradient"), exist_ok=True)
    torch.cat(out).numpy().astype("<f8").tofile(os.path.join(here, "gradient", name + ".f64"))


make("gemma2", dense)
make("qwen3-moe", mixture)
