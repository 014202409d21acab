CASES = {
    # a quarter of each head is turned
    "stablelm": ("StableLmForCausalLM", dict(**rope(theta=500.0)), {}),
    # both halves of a layer read one norm, biases, heads turned whole
    "stablelm-parallel": ("StableLmForCausalLM", dict(
        use_parallel_residual=True, use_qkv_bias=True, tie_word_embeddings=True, partial_rotary_factor=1.0), {}),
    # activations that have no family of their own here
    "stablelm-relu": ("StableLmForCausalLM", dict(hidden_act="relu"), {}),
    "stablelm-relu2": ("StableLmForCausalLM", dict(hidden_act="relu2", num_hidden_layers=1), {}),
    "stablelm-quick": ("StableLmForCausalLM", dict(hidden_act="quick_gelu", num_hidden_layers=1), {}),
}
