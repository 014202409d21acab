CASES = {
    # one KV head for all
    "gpt-bigcode": ("GPTBigCodeForCausalLM", dict(GPT), {}),
    # one for each head, a feed-forward of its own width
    "gpt-bigcode-mha": ("GPTBigCodeForCausalLM", dict(GPT, multi_query=False, n_inner=40, tie_word_embeddings=False), {}),
}
