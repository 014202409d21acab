FALCON = dict(intermediate_size=None, num_key_value_heads=None)
CASES = {
    # one KV head for all, no biases
    "falcon": ("FalconForCausalLM", dict(FALCON, **rope(theta=500.0)), {}),
    # one for each head, biases, a head of its own, a feed-forward of its own width
    "falcon-mha": ("FalconForCausalLM", dict(FALCON, multi_query=False, bias=True, tie_word_embeddings=False, ffn_hidden_size=40), {}),
}


def converter(case, config):
    config.pop("num_kv_heads")  # which the class does not read here, and published files lack
