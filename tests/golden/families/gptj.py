CASES = {
    # a part of each head is turned, neighbours together
    "gptj": ("GPTJForCausalLM", dict(GPT, rotary_dim=4), {}),
    "gptj-whole": ("GPTJForCausalLM", dict(GPT, rotary_dim=8, n_inner=40, tie_word_embeddings=True), {}),
}
