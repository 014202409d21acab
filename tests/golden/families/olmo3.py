CASES = {
    # windows in all layers but the fourth, which alone has scaled positions; the keys of older files
    "olmo3": ("Olmo3ForCausalLM", dict(num_hidden_layers=4, sliding_window=9, rope_parameters=dict(
        full_attention=dict(rope_type="yarn", rope_theta=500000.0, factor=4.0, original_max_position_embeddings=16, beta_fast=32.0, beta_slow=1.0,
                            attention_factor=1.1386294361119891),
        sliding_attention=dict(rope_type="default", rope_theta=500000.0))), dict(
            rope_parameters=None, layer_types=None, rope_theta=500000.0,
            rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=32, beta_slow=1,
                              attention_factor=1.1386294361119891))),
    # windows as they are listed, a base of their own under them
    "olmo3-list": ("Olmo3ForCausalLM", dict(
        num_hidden_layers=3, num_key_value_heads=None, sliding_window=7, tie_word_embeddings=True,
        layer_types=["full_attention", "sliding_attention", "full_attention"], rope_parameters=dict(
            full_attention=dict(rope_type="default", rope_theta=3000.0),
            sliding_attention=dict(rope_type="default", rope_theta=200.0))), {}),
    # the base of older files is that of layers without a window
    "olmo3-base": ("Olmo3ForCausalLM", dict(sliding_window=7, layer_types=["full_attention", "sliding_attention"]), dict(
        rope_parameters=None, rope_theta=70.0)),
}


def converter(case, config):
    config["layer_types"] = ["full_attention" if i % 4 == 3 else "sliding_attention" for i in range(config["num_hidden_layers"])]
