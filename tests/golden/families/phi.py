CASES = {
    # half of each head is turned
    "phi": ("PhiForCausalLM", dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5)), {}),
    # the keys of older files, with the part left out
    "phi-old": ("PhiForCausalLM", dict(
        num_key_value_heads=None, tie_word_embeddings=True, hidden_act="gelu",
        rope_parameters=dict(rope_type="default", rope_theta=500.0, partial_rotary_factor=0.5)), dict(
            rope_parameters=None, partial_rotary_factor=None, rope_theta=500.0, qk_layernorm=False)),
}


def converter(case, config):
    config.setdefault("partial_rotary_factor", config["rope_parameters"]["partial_rotary_factor"])
