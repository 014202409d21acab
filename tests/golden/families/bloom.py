BLOOM = dict(intermediate_size=None, num_hidden_layers=None, num_attention_heads=None, num_key_value_heads=None, max_position_embeddings=None,
             n_layer=2)
CASES = {
    "bloom": ("BloomForCausalLM", dict(BLOOM, n_head=4), {}),
    # a count of heads that is no power of two, the keys of older files
    "bloom-old": ("BloomForCausalLM", dict(BLOOM, hidden_size=48, n_head=6), dict(
        hidden_size=None, n_embed=48, n_head=None, num_attention_heads=6)),
}
