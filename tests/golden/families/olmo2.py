CASES = {
    # fewer keys than queries, so that their norms have other widths
    "olmo2": ("Olmo2ForCausalLM", dict(**rope(theta=500.0)), {}),
    # biases, a tied head, positions stretched for long texts
    "olmo2-bias": ("Olmo2ForCausalLM", dict(
        num_key_value_heads=None, attention_bias=True, tie_word_embeddings=True,
        **rope("yarn", theta=500.0, factor=4.0, original_max_position_embeddings=16)), {}),
}
