CASES = {
    # scaled positions whose attention factor is one, queries that grow from the 17th token on
    "ministral3": ("Ministral3ForCausalLM", dict(head_dim=16, **rope(
        "yarn", theta=500.0, factor=4.0, original_max_position_embeddings=16, beta_fast=32.0, beta_slow=1.0, mscale=1.0,
        mscale_all_dim=1.0, llama_4_scaling_beta=0.3)), {}),
    # no growth, a factor of its own, a window, another type of positions
    "ministral3-window": ("Ministral3ForCausalLM", dict(head_dim=8, sliding_window=9, tie_word_embeddings=True, **rope(
        "yarn", theta=500.0, factor=4.0, original_max_position_embeddings=16, mscale=1.0, mscale_all_dim=0.0,
        llama_4_scaling_beta=0.0)), {}),
}
