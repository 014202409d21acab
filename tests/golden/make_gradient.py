#!/usr/bin/env python3
"""The gradient of a KL divergence by every matrix of tests/golden/model/gemma2 (f32, torch's autograd), for tests/unit/test_tape.c.

usage: make_gradient.py      needs torch and transformers; the seed is fixed

gradient/gemma2.f64: tokens [2, 12]; hidden states of a teacher behind its last layer [2, 12, hidden]; the sum over tokens of
KL(teacher || model); then for each layer and of q, k, v, o, gate, up, down: the sum of the gradient's squares, and every 61st
element of it.
"""
import os

import torch
from transformers import Gemma2ForCausalLM

here = os.path.dirname(os.path.abspath(__file__))
torch.manual_seed(12)
model = Gemma2ForCausalLM.from_pretrained(os.path.join(here, "model", "gemma2"), dtype=torch.float32, attn_implementation="eager").eval()
config = model.config
tokens = torch.randint(0, config.vocab_size, (2, 12))
teacher = torch.randn(2, 12, config.hidden_size)


def logits(hidden):
    x = model.lm_head(model.model.norm(hidden))
    return config.final_logit_softcapping * torch.tanh(x / config.final_logit_softcapping)


with torch.no_grad():
    want = torch.log_softmax(logits(teacher), -1)
have = torch.log_softmax(model(tokens).logits, -1)
kl = (want.exp() * (want - have)).sum()
kl.backward()
out = [tokens.flatten().double(), teacher.flatten().double(), kl.detach().double().reshape(1)]
for layer in model.model.layers:
    a, f = layer.self_attn, layer.mlp
    for m in (a.q_proj, a.k_proj, a.v_proj, a.o_proj, f.gate_proj, f.up_proj, f.down_proj):
        g = m.weight.grad.double().flatten()
        out += [(g * g).sum().reshape(1), g[::61]]
os.makedirs(os.path.join(here, "gradient"), exist_ok=True)
torch.cat(out).numpy().astype("<f8").tofile(os.path.join(here, "gradient", "gemma2.f64"))
