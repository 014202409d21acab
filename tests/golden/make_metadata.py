#!/usr/bin/env python3
"""A tiny random llama as GGUF with keys of every type, by the reference writer, for tests/unit/test_carry.c and tests/cli/metadata.sh.

usage: make_metadata.py [OUT]     needs gguf and numpy; the seed is fixed
"""
import os
import sys

import gguf
import numpy as np

VOCAB, WIDTH, FFN, LAYERS, HEADS = 272, 32, 64, 1, 2


def tokens():
    """<unk> <s> </s> <|end|> <|more|>, 256 bytes, and some words."""
    special = ["<unk>", "<s>", "</s>", "<|end|>", "<|more|>"]
    texts = special + [f"<0x{i:02X}>" for i in range(256)] + ["▁", "a", "b", "ab", "▁a", "▁ab", "e", "t", "▁t", "he", "▁the"]
    types = [2, 3, 3, 3, 3] + [6] * 256 + [1] * 11
    return texts, types, [0.0] * 261 + [-float(i) for i in range(11)]


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "metadata", "keys.gguf")
    os.makedirs(os.path.dirname(out), exist_ok=True)
    rng = np.random.default_rng(5)
    w = gguf.GGUFWriter(out, "llama")
    w.add_name("n" * 300)
    w.add_string("general.license", "apache-2.0")
    w.add_string("general.organization", "Example")
    w.add_array("general.languages", ["en", "de"])
    w.add_array("general.tags", ["x", "text-generation"])
    w.add_uint32("general.base_model.count", 1)
    w.add_string("general.base_model.0.repo_url", "https://example.org/m")
    w.add_file_type(gguf.LlamaFileType.ALL_F32)
    w.add_quantization_version(2)
    w.add_string("quantize.imatrix.file", "some.dat")
    w.add_int32("quantize.imatrix.entries_count", 7)
    w.add_sampling_temp(0.6)
    w.add_sampling_top_k(20)
    w.add_sampling_top_p(0.95)
    w.add_sampling_penalty_repeat(1.05)
    for name, kind, value in (("u8", "uint8", 200), ("i8", "int8", -100), ("u16", "uint16", 60000), ("i16", "int16", -30000),
                              ("u32", "uint32", 4000000000), ("i32", "int32", -2000000000), ("u64", "uint64", 1 << 63),
                              ("i64", "int64", -(1 << 62)), ("f32", "float32", 0.1), ("f64", "float64", 0.1), ("bool", "bool", True)):
        getattr(w, "add_" + kind)("other.tool." + name, value)
    w.add_key_value("other.tool.bytes", [1, 2, 255], gguf.GGUFValueType.ARRAY, sub_type=gguf.GGUFValueType.UINT8)
    w.add_array("other.tool.flags", [True, False])
    w.add_array("other.tool.floats", [0.1, -3.5])
    w.add_uint32("llama.other_key", 5)
    w.add_context_length(64)
    w.add_embedding_length(WIDTH)
    w.add_block_count(LAYERS)
    w.add_feed_forward_length(FFN)
    w.add_head_count(HEADS)
    w.add_head_count_kv(HEADS)
    w.add_key_length(WIDTH // HEADS)
    w.add_value_length(WIDTH // HEADS)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(WIDTH // HEADS)
    texts, types, scores = tokens()
    w.add_tokenizer_model("llama")
    w.add_token_list(texts)
    w.add_token_scores(scores)
    w.add_token_types(types)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_eom_token_id(4)
    w.add_unk_token_id(0)
    w.add_add_space_prefix(False)
    w.add_chat_template([{"name": "default", "template": "D{{ messages }}"}, {"name": "tool_use", "template": "T\n{{ tools }}"},
                         {"name": "rag", "template": "R"}])

    def put(name, *shape):
        w.add_tensor(name, (rng.standard_normal(shape) * 0.1).astype(np.float32))

    put("token_embd.weight", VOCAB, WIDTH)
    put("output_norm.weight", WIDTH)
    put("output.weight", VOCAB, WIDTH)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        put(f"blk.0.{name}.weight", WIDTH, WIDTH)
    put("blk.0.attn_norm.weight", WIDTH)
    put("blk.0.ffn_norm.weight", WIDTH)
    put("blk.0.ffn_gate.weight", FFN, WIDTH)
    put("blk.0.ffn_up.weight", FFN, WIDTH)
    put("blk.0.ffn_down.weight", WIDTH, FFN)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    main()
