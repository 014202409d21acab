CASES = {
    "cohere": ("CohereForCausalLM", dict(logit_scale=0.25, **rope(theta=500.0)), {}),
    "cohere-bias": ("CohereForCausalLM", dict(attention_bias=True, tie_word_embeddings=False, num_key_value_heads=4, logit_scale=2.0), {}),
    # a window and positions in all layers but every fourth
    "cohere2": ("Cohere2ForCausalLM", dict(num_hidden_layers=4, sliding_window=9, logit_scale=0.25, **rope(theta=500.0)), {}),
    # the same in the key of older files
    "cohere2-old": ("Cohere2ForCausalLM", dict(num_hidden_layers=3, sliding_window=9, sliding_window_pattern=2, attention_bias=True), dict(
        layer_types=None, sliding_window_pattern=2, rope_parameters=None, rope_theta=10000, rope_scaling=None)),
}


def converter(case, config):
    if case == "cohere2":
        config["rotary_pct"] = 1.0
