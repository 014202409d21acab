def factors(n, step):
    return [round(1 + step * i * (i + 1), 3) for i in range(n)]


def longrope(original, dims, **more):
    return dict(original_max_position_embeddings=original, **rope(
        "longrope", theta=500.0, short_factor=factors(dims // 2, 0.05), long_factor=factors(dims // 2, 0.7), **more))


CASES = {
    "phi3": ("Phi3ForCausalLM", dict(**rope(theta=500.0)), {}),
    # a window, heads all of one kind
    "phi3-window": ("Phi3ForCausalLM", dict(num_key_value_heads=None, sliding_window=9), {}),
    # texts that stay as short as those that the model was trained on first
    "phi3-short": ("Phi3ForCausalLM", dict(tie_word_embeddings=True, **longrope(48, 8)), {}),
    # longer ones, three quarters of a head turned, the keys of older files
    "phi3-long": ("Phi3ForCausalLM", dict(hidden_size=64, **longrope(32, 12, partial_rotary_factor=0.75)), dict(
        rope_parameters=None, rope_theta=500.0, partial_rotary_factor=0.75, attention_bias=False, full_attn_mod=1, interpolate_factor=1,
        rope_scaling=dict(type="longrope", short_factor=factors(6, 0.05), long_factor=factors(6, 0.7)))),
}


def converter(case, config):
    config.setdefault("original_max_position_embeddings", 4096)
