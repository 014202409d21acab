CASES = {
    "granite": ("GraniteForCausalLM", dict(
        embedding_multiplier=12.0, logits_scaling=8.0, residual_multiplier=0.22, attention_multiplier=0.0155), {}),
    "granite-tied": ("GraniteForCausalLM", dict(
        embedding_multiplier=3, logits_scaling=0.5, attention_multiplier=0.25, tie_word_embeddings=True, attention_bias=True,
        mlp_bias=True), {}),
}
