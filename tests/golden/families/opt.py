OPT = dict(intermediate_size=None, num_key_value_heads=None, ffn_dim=40)
CASES = {
    "opt": ("OPTForCausalLM", dict(OPT), {}),
    "opt-gelu": ("OPTForCausalLM", dict(OPT, activation_function="gelu", tie_word_embeddings=False), {}),
}
