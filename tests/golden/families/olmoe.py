CASES = {
    "olmoe": ("OlmoeForCausalLM", dict(num_key_value_heads=None, num_experts=4, num_experts_per_tok=2, **rope(theta=500.0)), {}),
    # weights that add up to one, fewer keys than queries, biases, the experts of a layer in one tensor
    "olmoe-norm": ("OlmoeForCausalLM", dict(
        num_experts=5, num_experts_per_tok=3, norm_topk_prob=True, attention_bias=True, tie_word_embeddings=True), {}),
}


def tensors(case, tensors):
    """A tensor for each expert, as published models have them."""
    if case == "olmoe-norm":
        return
    for key in [k for k in tensors if ".experts." in k]:
        stem, kind = key.rsplit(".", 1)
        for i, t in enumerate(tensors.pop(key)):
            for name, part in zip(("gate_proj", "up_proj"), t.chunk(2)) if kind == "gate_up_proj" else (("down_proj", t),):
                tensors[f"{stem}.{i}.{name}.weight"] = part.contiguous()
